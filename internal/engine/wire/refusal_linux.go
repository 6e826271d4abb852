package wire

// A Refusal says why a pair is not spliced: 0 is none. Package engine has a
// code for each, in this order.
type Refusal uint8

// The refusals.
const (
	NotTCP      Refusal = iota + 1 // a unix socket, MPTCP, or a protocol on top of TCP in the kernel
	Families                       // IPv4 on one side, IPv6 on the other
	Options                        // timestamps, SACK or ECN on one side alone; signed segments
	SegmentSize                    // segments of one side don't fit the way to the other
	NoRoute                        // no route, or one that is no unicast route
	LinkLayer                      // an interface without Ethernet headers
	Full                           // the table is full
	Conflict                       // the addresses are those of another flow
	Unseen                         // the packets don't come by the program: NAT, another interface, another program
	Busy                           // the connections never came to rest
	Ended                          // the connection was ending already
	Limited                        // the session has a limit of bytes
	Denied                         // no privilege, no BPF, or a kernel before 6.6
	Borrowed                       // somebody else wants the sockets back
	Broken                         // the kernel refused something that should work
	Braked                         // the session has a limit of bandwidth, which packets don't keep
	Spent                          // packets come in their last hop: no router would pass them on
	Transparent                    // a socket may have addresses that are not this machine's
	OwnRoute                       // a socket is bound to an interface, or marked, which packets are not
	Divided                        // packets come in fragments
)
