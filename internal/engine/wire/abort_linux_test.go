package wire_test

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"
)

// Both sides hear of an end that was made of numbers of the past: something crossed in between.
// It does not depend on whether the sockets are there yet, which would take what the sides
// answer for theirs.
func TestAbortAfterMoving(t *testing.T) {
	for _, pl := range places() {
		for _, tc := range []struct {
			name    string
			sockets bool
		}{{"sockets", true}, {"none", false}} {
			t.Run(pl.name+"/"+tc.name, func(t *testing.T) {
				_, b, pair := pl.settled(t)
				if !tc.sockets {
					pair.Dissolve()
				}
				v, err := pair.Look()
				if err != nil {
					t.Fatal(err)
				}
				carry(t, b.client, b.server, 1000)
				carry(t, b.server, b.client, 1000)
				pair.AbortAsOf(&v)
				for i, c := range []*net.TCPConn{b.client, b.server} {
					// It is not to find out by itself.
					if err := errors.Join(c.SetKeepAlive(false), c.SetReadDeadline(time.Now().Add(patience))); err != nil {
						t.Fatal(err)
					}
					if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("side %d has got %d bytes and %v, want a reset", i, n, err)
					}
				}
			})
		}
	}
}
