//go:build linux

package splice_test

import (
	"net"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/spliced-io/spliced/splice/conformance"
)

// TestNettest has a relay between the two ends pass for a connection.
func TestNettest(t *testing.T) {
	for _, e := range conformance.Engines() {
		for _, leg := range []conformance.Leg{conformance.TCP4, conformance.TCP6, conformance.Unix} {
			for _, own := range []bool{false, true} {
				n := conformance.Network{A: leg, B: leg}
				name := e.Name + "/" + n.String() + "/borrowed"
				if own {
					name = e.Name + "/" + n.String() + "/own"
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
						l := conformance.NewLink(t, e, n, own)
						l.Start()
						for _, c := range []net.Conn{l.A, l.B} {
							if err := c.SetDeadline(time.Time{}); err != nil {
								return nil, nil, nil, err
							}
						}
						return l.A, l.B, l.Release, nil
					})
				})
			}
		}
	}
}
