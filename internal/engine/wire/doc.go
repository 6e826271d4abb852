// Package wire splices pairs of TCP connections packet by packet: a BPF program
// on the interfaces rewrites the packets of one side into those of the other,
// and the sockets in between are gone. See docs/wire.md.
package wire
