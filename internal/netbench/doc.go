// Package netbench measures a TCP relay beside its peers: A sends through B to
// C on one machine (network namespaces or loopback) or on three. It makes the
// topology, starts each proxy in turn, generates and verifies the load, and
// keeps account of what it cost.
package netbench
