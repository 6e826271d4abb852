// Package conformance is the test suite of what a relay promises, for every
// engine alike.
//
// A test hands it the engine:
//
//	conformance.Run(t, conformance.Engine{
//		Name:    "splice",
//		Options: []splice.Option{splice.Use(splice.EngineSplice)},
//	})
//
// Each promise is driven over TCP (IPv4 and IPv6), unix stream sockets and, in
// part, MPTCP and mixed pairs; each once with connections that stay the
// caller's and once with [splice.Own]. Bytes carry a pattern that depends on
// their position and on their direction, so a byte lost, doubled, swapped or
// sent to the wrong side is found and named.
//
// Sources of the cases that were not invented here: the regress suites of
// SO_SPLICE (OpenBSD's regress/sys/kern/sosplice, FreeBSD's
// tests/sys/kern/socket_splice.c), the splice tests of Go's net package, and
// defects that HAProxy and Sōzu had to mend in their splicing.
//
// The suite drives real sockets of Linux; elsewhere the package is empty.
package conformance
