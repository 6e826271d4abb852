//go:build linux

package conformance

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
)

// Leg is the kind of one connection of a relay.
type Leg string

// The legs.
const (
	TCP4  Leg = "tcp4"
	TCP6  Leg = "tcp6"
	Unix  Leg = "unix"
	MPTCP Leg = "mptcp"
)

// Network is what a relay joins: A from the client to the relay, B from the
// relay to the server.
type Network struct{ A, B Leg }

func (n Network) String() string {
	if n.A == n.B {
		return string(n.A)
	}
	return string(n.A) + "-" + string(n.B)
}

// errNoMPTCP says that this machine made a plain TCP connection when asked
// for an MPTCP one.
var errNoMPTCP = errors.New("no MPTCP on this machine")

// Dial makes a connection of kind l and returns its two ends.
func (l Leg) Dial() (dialed, accepted net.Conn, err error) {
	switch l {
	case Unix:
		return socketpair(syscall.SOCK_STREAM)
	case TCP6:
		return dialTCP("tcp6", "[::1]:0", false)
	case MPTCP:
		return dialTCP("tcp4", "127.0.0.1:0", true)
	default:
		return dialTCP("tcp4", "127.0.0.1:0", false)
	}
}

func (l Leg) tcp() bool { return l != Unix }

func dialTCP(network, address string, multipath bool) (dialed, accepted net.Conn, err error) {
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(multipath)
	ctx := context.Background()
	ln, err := lc.Listen(ctx, network, address)
	if err != nil {
		return nil, nil, err
	}
	defer ln.Close()
	d := net.Dialer{}
	d.SetMultipathTCP(multipath)
	dialed, err = d.DialContext(ctx, network, ln.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	// The kernel accepted already: a dial to a listener of its own that
	// nobody else knows has exactly one connection behind it.
	accepted, err = ln.Accept()
	if err != nil {
		dialed.Close()
		return nil, nil, err
	}
	if multipath {
		if used, err := dialed.(*net.TCPConn).MultipathTCP(); err != nil || !used {
			dialed.Close()
			accepted.Close()
			return nil, nil, errNoMPTCP
		}
	}
	return dialed, accepted, nil
}

// socketpair returns a connected pair of unix sockets.
func socketpair(kind int) (x, y net.Conn, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, kind|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	x, err = conn(fds[0])
	if err != nil {
		syscall.Close(fds[1])
		return nil, nil, err
	}
	y, err = conn(fds[1])
	if err != nil {
		x.Close()
		return nil, nil, err
	}
	return x, y, nil
}

// conn makes a net.Conn of a socket and takes the descriptor over.
func conn(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close() // FileConn duplicates it
	return net.FileConn(f)
}
