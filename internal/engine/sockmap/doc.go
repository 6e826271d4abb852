// Package sockmap has a BPF verdict program redirect the bytes of one socket to
// another, and keeps the account that makes that safe: see
// internal/bpf/sockmap.c.
package sockmap
