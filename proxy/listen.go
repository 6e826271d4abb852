package proxy

import (
	"context"
	"fmt"
	"net"
	"time"
)

// A peer that vanished is noticed after 2 minutes and 4 × 15 s without a sign
// of life. Go's default asks every 15 s: with 10,000 idle pairs that is 1,300
// packets a second, and their answers, for nothing.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 2 * time.Minute, Interval: 15 * time.Second, Count: 4}

// Listen opens a listener for [Server.Serve]. A unix socket's file that nobody
// listens on any more is replaced; one that is in use is an error, and so is a
// file that is no socket.
func Listen(ctx context.Context, addr Addr) (net.Listener, error) {
	if addr.Network == "unix" {
		return listenUnix(ctx, addr)
	}
	lc := net.ListenConfig{}
	// Go listens with MPTCP unless told otherwise. An MPTCP connection is
	// reassembled above its subflows, which the packet level can't translate,
	// and it gains a relay nothing that its operator has not asked for.
	lc.SetMultipathTCP(false)
	inheritKeepAlive(&lc)
	ln, err := lc.Listen(ctx, addr.Network, addr.Address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, cause(err))
	}
	return ln, nil
}

// cause drops the words that net.OpError puts before its error: whoever wraps
// it says them too.
func cause(err error) error {
	if op, ok := err.(*net.OpError); ok {
		return op.Err
	}
	return err
}
