package wire_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/sys"
	"github.com/spliced-io/spliced/internal/testnet"
)

// ends are the two addresses of a connection, as its owner sees them.
func ends(c *net.TCPConn) (local, peer netip.AddrPort) {
	l, p := c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(l.Addr().Unmap(), l.Port()), netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// returned is a pair's sockets, taken back.
func returned(t *testing.T, pair *wire.Pair) [2]int {
	t.Helper()
	if err := pair.Bar(); err != nil {
		t.Fatal(err)
	}
	back := make(chan [2]int, 1)
	pair.Return(func(fds [2]int, err error) {
		if err != nil {
			t.Error(err)
		}
		back <- fds
	})
	fds := <-back
	if t.Failed() {
		t.FailNow()
	}
	return fds
}

// takeBack takes a pair back into sockets, and has each receive and send something.
func takeBack(t *testing.T, pair *wire.Pair, b *bench) {
	t.Helper()
	fds := returned(t, pair)
	for i, conn := range []*net.TCPConn{b.client, b.server} {
		if _, err := conn.Write([]byte("back")); err != nil {
			t.Error(err)
		}
		eventually(t, "the rebuilt socket has it", func() bool {
			n, err := sys.Unread(fds[i])
			return err == nil && n == 4
		})
		if _, err := syscall.Write(fds[i], []byte("here")); err != nil {
			t.Error(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil {
			t.Errorf("what the rebuilt socket says: %v", err)
		}
		_ = sys.Close(fds[i])
	}
}

// next is the segment that side i of a pair would send next, without data.
func next(v *wire.View, i int, conn *net.TCPConn) testnet.Segment {
	local, peer := ends(conn)
	return testnet.Segment{
		From: local, To: peer, Seq: v.Flows[i].End, Ack: v.Flows[i].Acked, Flags: testnet.ACK,
		Window: uint16(v.Flows[i].Window), Stamped: true, Stamp: v.Flows[i].Tsval,
	}
}

// atRest waits until all is acknowledged.
func atRest(t *testing.T, pair *wire.Pair) (v wire.View) {
	t.Helper()
	eventually(t, "all is acknowledged", func() bool {
		var err error
		if v, err = pair.Look(); err != nil {
			t.Fatal(err)
		}
		return v.Resting()
	})
	return v
}

// What a stranger sends with the addresses of a flow goes across, its true receiver says
// that it does not believe it (RFC 5961; RFC 7323, 5), and that answer comes back as one
// of this leg. The connection goes on, and what is known of it stays right.
func TestForgedSegments(t *testing.T) {
	for _, pl := range places()[:2] {
		t.Run(pl.name, func(t *testing.T) {
			c := newChain(t)
			for _, ns := range []*testnet.Namespace{c.A, c.C} {
				// Each is answered, not one in half a second.
				if err := ns.Sysctl("net.ipv4.tcp_invalid_ratelimit", "0"); err != nil {
					t.Fatal(err)
				}
			}
			b := pl.open(t, c)
			p := openPlane(t, c, wire.Config{}) // last: without a pair it soon ends
			pair := consider(t, c, p, b, func() {})
			handOver(t, pair)
			both(t, b)
			sides := []struct {
				name           string
				here, receiver *testnet.Namespace
				conn           *net.TCPConn
			}{{"to the server", c.A, c.C, b.client}, {"to the client", c.C, c.A, b.server}}
			for _, tc := range []struct {
				name    string
				change  func(*testnet.Segment) // of the next in line
				counter string                 // of the receiver
			}{
				{"RST within the window", func(s *testnet.Segment) { s.Flags, s.Seq = testnet.RST, s.Seq+100 }, "TcpExtTCPChallengeACK"},
				{"RST with acknowledgement within the window", func(s *testnet.Segment) { s.Flags, s.Seq = testnet.RST|testnet.ACK, s.Seq+1 }, "TcpExtTCPChallengeACK"},
				{"SYN in line", func(s *testnet.Segment) { s.Flags, s.Ack = testnet.SYN, 0 }, "TcpExtTCPSYNChallenge"},
				{"SYN anywhere", func(s *testnet.Segment) { s.Flags, s.Seq, s.Ack = testnet.SYN, s.Seq+1<<30, 0 }, "TcpExtTCPSYNChallenge"},
				{"SYN with acknowledgement", func(s *testnet.Segment) { s.Flags |= testnet.SYN }, "TcpExtTCPSYNChallenge"},
				{"an old clock", func(s *testnet.Segment) { s.Stamp, s.Data = s.Stamp-10000, []byte("x") }, "TcpExtPAWSEstab"},
				{"a FIN with an old clock", func(s *testnet.Segment) { s.Stamp, s.Flags = s.Stamp-10000, s.Flags|testnet.FIN }, "TcpExtPAWSEstab"},
				{"an old acknowledgement", func(s *testnet.Segment) { s.Ack, s.Data = s.Ack-1<<30, []byte("x") }, "TcpExtTCPChallengeACK"},
			} {
				for i, side := range sides {
					t.Run(tc.name+" "+side.name, func(t *testing.T) {
						v := atRest(t, pair)
						local, peer := ends(side.conn)
						tap, err := side.here.Tap(local.Addr())
						if err != nil {
							t.Fatal(err)
						}
						defer tap.Close()
						before, err := side.receiver.Counter(tc.counter)
						if err != nil {
							t.Fatal(err)
						}
						s := next(&v, i, side.conn)
						tc.change(&s)
						if err := side.here.Forge(&s); err != nil {
							t.Fatal(err)
						}
						answer, ok := tap.Await(peer, local, patience, func(*testnet.Segment) bool { return true })
						if !ok || answer.Flags != testnet.ACK || answer.Seq != v.Flows[i].Acked || answer.Ack != v.Flows[i].End || len(answer.Data) > 0 {
							t.Errorf("answered by %+v, %v, want an acknowledgement of %d at %d", answer, ok, v.Flows[i].End, v.Flows[i].Acked)
						}
						if after, err := side.receiver.Counter(tc.counter); err != nil || after != before+1 {
							t.Errorf("%s has become %d, %v, was %d", tc.counter, after, err, before)
						}
						both(t, b)
						is := atRest(t, pair)
						if want := [2]int64{v.Delivered[0] + 1000, v.Delivered[1] + 100000}; is.Delivered != want || is.Reset != [2]bool{} || is.FIN != [2]bool{} {
							t.Errorf("%v bytes, want %v; RST %v, FIN %v", is.Delivered, want, is.Reset, is.FIN)
						}
					})
				}
			}
			pair.Abort()
		})
	}
}

// Of a RST between what is acknowledged and what was sent last nobody on the way knows whether it is
// where its receiver is. A stranger's is not, and does no harm.
func TestForgedResets(t *testing.T) {
	for _, pl := range places()[:2] {
		t.Run(pl.name, func(t *testing.T) {
			c, b, pair := pl.splice(t)
			both(t, b)
			for i, side := range []struct {
				from, to *testnet.Namespace
				conn     *net.TCPConn
				other    *net.TCPConn
			}{{c.A, c.C, b.client, b.server}, {c.C, c.A, b.server, b.client}} {
				const underWay = 4000
				was := atRest(t, pair)
				if err := side.to.Lose(t.Context(), 1000); err != nil {
					t.Fatal(err)
				}
				if _, err := side.conn.Write(make([]byte, underWay)); err != nil {
					t.Fatal(err)
				}
				look := func() wire.View {
					v, err := pair.Look()
					if err != nil {
						t.Fatal(err)
					}
					return v
				}
				eventually(t, "it has gone across", func() bool {
					return look().Flows[i].End == was.Flows[i].End+underWay
				})
				for _, at := range []uint32{1, underWay / 2, underWay - 1} {
					for _, flags := range []byte{testnet.RST, testnet.RST | testnet.ACK} {
						before := look().Flows[i].Packets
						s := next(&was, i, side.conn)
						s.Seq, s.Flags = s.Seq+at, flags
						if err := side.from.Forge(&s); err != nil {
							t.Fatal(err)
						}
						eventually(t, "the RST has come by", func() bool { return look().Flows[i].Packets > before })
						if v := look(); v.Reset != [2]bool{} || v.Over {
							t.Errorf("%d bytes behind what is acknowledged: %v", at, v.Reset)
						}
					}
				}
				if err := side.to.Heal(t.Context()); err != nil {
					t.Fatal(err)
				}
				_ = side.other.SetReadDeadline(time.Now().Add(patience))
				if _, err := io.ReadFull(side.other, make([]byte, underWay)); err != nil {
					t.Error(err)
				}
				both(t, b)
			}
			pair.Abort()
		})
	}
}

// The clock of a segment that its receiver does not believe is not that of the socket which takes the pair
// back: its peer would take nothing from it.
func TestForgedClock(t *testing.T) {
	for _, pl := range places()[:2] {
		for _, tc := range []struct {
			name   string
			change func(*testnet.Segment) // of the next in line
		}{
			{"in line", func(*testnet.Segment) {}},
			{"anywhere", func(s *testnet.Segment) { s.Seq += 1 << 30 }},
			{"with an acknowledgement of what was not sent", func(s *testnet.Segment) { s.Ack += 1 << 30 }},
			{"with a RST", func(s *testnet.Segment) { s.Seq, s.Flags = s.Seq+100, testnet.RST|testnet.ACK }},
		} {
			t.Run(tc.name+" "+pl.name, func(t *testing.T) {
				c, b, pair := pl.splice(t)
				both(t, b)
				v := atRest(t, pair)
				for i, conn := range []*net.TCPConn{b.client, b.server} {
					s := next(&v, i, conn)
					s.Stamp -= 1 << 30
					tc.change(&s)
					if err := []*testnet.Namespace{c.A, c.C}[i].Forge(&s); err != nil {
						t.Fatal(err)
					}
					eventually(t, "it has come by", func() bool {
						is, err := pair.Look()
						return err == nil && is.Flows[i].Packets > v.Flows[i].Packets
					})
				}
				takeBack(t, pair, b)
			})
		}
	}
}

// What a stranger sends with the addresses of a pair that its sockets still carry they take for
// nothing, and so does the program: the numbers and the clock that it has noted are what the pair
// is switched by.
func TestForgedBeforeSwitch(t *testing.T) {
	for _, pl := range places()[:2] {
		for _, tc := range []struct {
			name   string
			change func(*testnet.Segment) // of the next in line
		}{
			{"a clock, and an old acknowledgement", func(s *testnet.Segment) { s.Stamp, s.Ack = s.Stamp+1<<30, s.Ack-1<<30 }},
			{"a clock, and any numbers", func(s *testnet.Segment) { s.Stamp, s.Seq, s.Ack = s.Stamp+1<<30, s.Seq+1<<30, s.Ack-1<<30 }},
			{"an acknowledgement of what was not sent", func(s *testnet.Segment) { s.Ack += 1 << 29 }},
			{"data far ahead", func(s *testnet.Segment) { s.Seq, s.Data = s.Seq+1<<29, []byte("x") }},
			{"a RST anywhere", func(s *testnet.Segment) { s.Seq, s.Flags = s.Seq+1<<29, testnet.RST }},
			{"a SYN", func(s *testnet.Segment) { s.Seq, s.Ack, s.Flags = s.Seq+1<<29, 0, testnet.SYN }},
		} {
			t.Run(tc.name+" "+pl.name, func(t *testing.T) {
				c := newChain(t)
				b := pl.open(t, c)
				p := openPlane(t, c, wire.Config{}) // last: without a pair it soon ends
				pair := consider(t, c, p, b, func() {})
				v, err := pair.Look()
				if err != nil {
					t.Fatal(err)
				}
				before, err := c.B.Counter("TcpInSegs") // of both families
				if err != nil {
					t.Fatal(err)
				}
				s := next(&v, 0, b.client)
				s.Seq = v.Flows[0].Passed
				tc.change(&s)
				if err := c.A.Forge(&s); err != nil {
					t.Fatal(err)
				}
				eventually(t, "it has arrived", func() bool {
					n, err := c.B.Counter("TcpInSegs")
					return err == nil && n > before
				})
				handOver(t, pair)
				both(t, b)
				is := atRest(t, pair)
				if want := [2]int64{1000, 100000}; is.Delivered != want || is.Reset != [2]bool{} || is.FIN != [2]bool{} {
					t.Errorf("%v bytes, want %v; RST %v, FIN %v", is.Delivered, want, is.Reset, is.FIN)
				}
				pair.Abort()
			})
		}
	}
}

// The clock of a peer jumps ahead: the other one's echoes still make sense to it, and the
// sockets that take the pair back go on from the new time.
func TestClockJumps(t *testing.T) {
	for _, pl := range places()[:2] {
		t.Run(pl.name, func(t *testing.T) {
			c, b, pair := pl.splice(t)
			both(t, b)
			atRest(t, pair)
			for i, conn := range []*net.TCPConn{b.client, b.server} {
				jump(t, conn, 1<<30)
				both(t, b)
				v := atRest(t, pair)
				if v.Flows[0].Retransmits+v.Flows[1].Retransmits > 0 {
					t.Errorf("after jump %d: %d, %d segments sent again", i, v.Flows[0].Retransmits, v.Flows[1].Retransmits)
				}
			}
			for ns, side := range map[*testnet.Namespace]string{c.A: "client", c.C: "server"} {
				if n, err := ns.Counter("TcpExtPAWSEstab"); err != nil || n > 0 {
					t.Errorf("the %s has refused %d segments, %v", side, n, err)
				}
			}
			takeBack(t, pair, b)
		})
	}
}

// jump puts the clock of a socket's timestamps ahead by so many ticks.
func jump(t *testing.T, conn *net.TCPConn, ticks uint32) {
	t.Helper()
	fd := fd(t, conn)
	is, err := sys.Timestamp(fd)
	err = errors.Join(err, sys.SetRepair(fd, sys.RepairOn), sys.SetTimestamp(fd, is+ticks), sys.SetRepair(fd, sys.RepairOffNoProbe))
	if err != nil {
		t.Fatal(err)
	}
}

// vanish ends a socket without a word, as a machine does that is started again.
func vanish(t *testing.T, conn *net.TCPConn) {
	t.Helper()
	if err := sys.SetRepair(fd(t, conn), sys.RepairOn); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

// A peer that was started again knows nothing of the connection: its RST, to what it is sent, ends
// the flow at both sides. The kernel says none to a packet with the route that is brought along to an address of this
// machine that is not lo's own: there the peer is asked.
func TestHalfOpen(t *testing.T) {
	for _, pl := range append(places(),
		place{"server-on-own-address-v6", onA, onB, testnet.Addr6BA, testnet.Addr6BC},
		place{"client-on-own-address", onB, onC, testnet.AddrBA, testnet.AddrC},
		place{"client-on-own-address-v6", onB, onC, testnet.Addr6BA, testnet.Addr6C},
	) {
		t.Run(pl.name, func(t *testing.T) {
			c := newChain(t)
			for i, gone := range []string{"client", "server"} {
				t.Run(gone, func(t *testing.T) {
					b := pl.open(t, c)
					p := openPlane(t, c, wire.Config{}) // last: without a pair it soon ends
					news := make(chan struct{}, 100)
					pair := consider(t, c, p, b, func() { news <- struct{}{} })
					handOver(t, pair)
					both(t, b)
					atRest(t, pair)
					conns := [2]*net.TCPConn{b.client, b.server}
					vanish(t, conns[i])
					ended := make(chan wire.View, 1)
					go func() {
						var asked [2]int64
						for {
							select {
							case <-t.Context().Done():
								return
							case <-news:
							}
							v, err := pair.Look()
							if err != nil || v.Over {
								ended <- v
								return
							}
							for i, at := range v.Doubted {
								if at > asked[i] {
									asked[i] = at
									pair.Ask(&v, i)
								}
							}
						}
					}()
					stays := conns[1-i]
					if _, err := stays.Write([]byte("are you there?")); err != nil {
						t.Fatal(err)
					}
					_ = stays.SetReadDeadline(time.Now().Add(patience))
					if _, err := stays.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("who stays sees %v, want a reset", err)
					}
					select {
					case v := <-ended:
						if v.Reset != [2]bool{i == 0, i == 1} || v.Delivered != [2]int64{1000, 100000} {
							t.Errorf("RST %v, %v bytes", v.Reset, v.Delivered)
						}
					case <-time.After(patience):
						t.Error("the program has not said that it has seen the RST")
					}
					pair.Finish()
				})
			}
		})
	}
}
