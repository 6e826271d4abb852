// Package testnet makes what tests and benchmarks need: network namespaces,
// faults and load.
//
// Namespaces are entered by setns(2) on a thread of this process, never with
// "ip netns exec", which hides /sys/fs/bpf from the command. They are mounted
// below /run/netns under a name that says which process made them
// ("spliced-PID-START-PIDNS-LABEL"), so that ip netns and nsenter see them and
// the next run in that PID namespace removes what a crashed one has left.
//
// Everything that makes a namespace needs Linux and CAP_SYS_ADMIN; elsewhere
// it answers errors.ErrUnsupported.
package testnet
