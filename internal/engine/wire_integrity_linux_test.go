package engine_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/engine"
	"github.com/spliced-io/spliced/internal/testnet"
)

// A plan is what one connection does.
type plan struct {
	Up, Down uint32 // bytes
	Seed     uint64
	Abort    bool // the client has heard half of it, and resets the connection
}

// say writes n bytes in pieces of random sizes, with pauses in between, of which one
// comes after about half.
func (p plan) say(w io.Writer, n uint32, who byte) error {
	data := rand.NewChaCha8([32]byte{byte(p.Seed), byte(p.Seed >> 8), who})
	rng := rand.New(rand.NewPCG(p.Seed, uint64(who)))
	for pauses, half := 0, n/2; n > 0; {
		piece := make([]byte, min(n, 1+rng.Uint32N(1<<uint(rng.IntN(20)))))
		_, _ = data.Read(piece)
		if _, err := w.Write(piece); err != nil {
			return err
		}
		n -= uint32(len(piece))
		switch {
		case n < half:
			half = 0
			time.Sleep(time.Duration(20+rng.IntN(40)) * time.Millisecond)
		case pauses < 4 && rng.IntN(8) == 0:
			pauses++
			time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond)
		}
	}
	return nil
}

// check reads n bytes and compares them with what say writes.
func (p plan) check(r io.Reader, n uint32, who byte) error {
	got, want := sha256.New(), sha256.New()
	m, err := io.CopyN(got, r, int64(n))
	if err != nil {
		return fmt.Errorf("after %d bytes of %d: %w", m, n, err)
	}
	_, _ = io.CopyN(want, rand.NewChaCha8([32]byte{byte(p.Seed), byte(p.Seed >> 8), who}), int64(n))
	if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		return fmt.Errorf("bytes differ")
	}
	return nil
}

// abort hears half of what the server says, and then resets the connection. There
// has to be more than buffers hold: a server that has nothing to send any more
// does not get to know of a RST that is lost.
func (p plan) abort(c *net.TCPConn) error {
	_, err := io.CopyN(io.Discard, c, int64(p.Down)/2)
	if err == nil {
		err = c.SetLinger(0)
	}
	return errors.Join(err, c.Close())
}

// converse does one side of a plan: it half-closes when it has said all, and
// wants the other's FIN.
func (p plan) converse(c *net.TCPConn, say, hear uint32, who, other byte) error {
	var wg sync.WaitGroup
	var sayErr error
	wg.Go(func() {
		if sayErr = p.say(c, say, who); sayErr == nil {
			sayErr = c.CloseWrite()
		}
	})
	err := p.check(c, hear, other)
	if err == nil {
		if _, e := c.Read(make([]byte, 1)); e != io.EOF {
			err = fmt.Errorf("at the end: %w", e)
		}
	}
	wg.Wait()
	return errors.Join(err, sayErr)
}

// integrityCases are the circumstances of the connections that TestWireIntegrity
// makes.
var integrityCases = []struct {
	name    string
	v6      bool
	prepare func(*testing.T, *testnet.Chain)
	refused string
}{
	{"plain", false, nil, ""},
	{"plain v6", true, nil, ""},
	{"loss", false, losing, ""},
	{"loss v6", true, losing, ""},
	{"loss before the relay", false, losingBefore, ""},
	{"reordering", false, reordering, ""},
	{"reordering v6", true, reordering, ""},
	{"reordering and loss", false, func(t *testing.T, c *testnet.Chain) { reordering(t, c); losing(t, c) }, ""},
	{"no timestamps", false, off("net.ipv4.tcp_timestamps", onB), ""},
	{"no SACK, loss", false, func(t *testing.T, c *testnet.Chain) { off("net.ipv4.tcp_sack", onB)(t, c); losing(t, c) }, ""},
	{"windows of different scale", false, func(t *testing.T, c *testnet.Chain) {
		if err := c.A.Sysctl("net.ipv4.tcp_rmem", "4096 65536 262144"); err != nil {
			t.Fatal(err)
		}
		off("net.ipv4.tcp_window_scaling", onC)(t, c)
	}, ""},
	{"smaller segments of the client", false, func(t *testing.T, c *testnet.Chain) {
		if err := c.A.SetMTU(testnet.LinkAB, 1300); err != nil {
			t.Fatal(err)
		}
	}, ""},
	{"smaller segments of the server", false, func(t *testing.T, c *testnet.Chain) {
		if err := c.C.SetMTU(testnet.LinkCB, 1300); err != nil {
			t.Fatal(err)
		}
	}, ""},
	{"a smaller link to the server, v6", true, func(t *testing.T, c *testnet.Chain) {
		if err := errors.Join(c.B.SetMTU(testnet.LinkBC, 1400), c.C.SetMTU(testnet.LinkCB, 1400)); err != nil {
			t.Fatal(err)
		}
	}, ""},
	{"jumbo frames of the client", false, jumbo(testnet.LinkAB, testnet.LinkBA, onA), ""},
	{"jumbo frames of the server", false, jumbo(testnet.LinkCB, testnet.LinkBC, onC), ""},
	{"timestamps off at the server", false, off("net.ipv4.tcp_timestamps", onC), "wire-tcp-options"},
	{"timestamps off at the client", false, off("net.ipv4.tcp_timestamps", onA), "wire-tcp-options"},
	{"SACK off at the client", false, off("net.ipv4.tcp_sack", onA), "wire-tcp-options"},
	{"SACK off at the server", false, off("net.ipv4.tcp_sack", onC), "wire-tcp-options"},
}

func onA(c *testnet.Chain) *testnet.Namespace { return c.A }
func onB(c *testnet.Chain) *testnet.Namespace { return c.B }
func onC(c *testnet.Chain) *testnet.Namespace { return c.C }

func off(key string, of func(*testnet.Chain) *testnet.Namespace) func(*testing.T, *testnet.Chain) {
	return func(t *testing.T, c *testnet.Chain) {
		t.Helper()
		if err := of(c).Sysctl(key, "0"); err != nil {
			t.Fatal(err)
		}
	}
}

func jumbo(link, back string, of func(*testnet.Chain) *testnet.Namespace) func(*testing.T, *testnet.Chain) {
	return func(t *testing.T, c *testnet.Chain) {
		t.Helper()
		if err := errors.Join(of(c).SetMTU(link, 9000), c.B.SetMTU(back, 9000)); err != nil {
			t.Fatal(err)
		}
	}
}

// losing loses one of a hundred segments that arrive at A and C.
func losing(t *testing.T, c *testnet.Chain) {
	t.Helper()
	for _, ns := range []*testnet.Namespace{c.A, c.C} {
		if err := ns.Lose(context.Background(), 10); err != nil {
			t.Fatal(err)
		}
	}
}

// losingBefore loses one of a hundred segments that leave A and C.
func losingBefore(t *testing.T, c *testnet.Chain) {
	t.Helper()
	for ns, link := range map[*testnet.Namespace]string{c.A: testnet.LinkAB, c.C: testnet.LinkCB} {
		err := ns.Run(context.Background(), fmt.Sprintf(`
			table netdev lossy {
				chain leaving {
					type filter hook egress device %q priority 0; policy accept;
					meta l4proto tcp numgen random mod 100 < 1 counter drop
				}
			}`, link), "nft", "-f", "-")
		if err != nil {
			t.Fatal(err)
		}
	}
}

// reordering has one of fifty segments that leave A and C be overtaken.
func reordering(t *testing.T, c *testnet.Chain) {
	t.Helper()
	for ns, link := range map[*testnet.Namespace]string{c.A: testnet.LinkAB, c.C: testnet.LinkCB} {
		stop, err := ns.Reorder(context.Background(), link, 20, 3*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Connections with random sizes, pauses and ends come through whole, and their
// sessions say how they ended. The figures of docs/wire.md are of 1,000 of each
// kind (SPLICED_HANDOVERS), which takes half an hour.
func TestWireIntegrity(t *testing.T) {
	for _, tc := range integrityCases {
		n := handOvers(8)
		t.Run(tc.name, func(t *testing.T) {
			c := wireChain(t)
			if tc.prepare != nil {
				tc.prepare(t, c)
			}
			front, back := testnet.AddrBA, testnet.AddrC
			if tc.v6 {
				front, back = testnet.Addr6BA, testnet.Addr6C
			}
			var mu sync.Mutex
			var serverErrs []error
			server := serve(t, c.C, back, func(conn *net.TCPConn) {
				var p plan
				err := binary.Read(conn, binary.BigEndian, &p)
				if err == nil {
					err = p.converse(conn, p.Down, p.Up, 'c', 'a')
				}
				if p.Abort {
					if err == nil {
						err = errors.New("no error in spite of a reset")
					} else if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
						err = nil
					}
				}
				mu.Lock()
				defer mu.Unlock()
				serverErrs = append(serverErrs, err)
			})
			r := startRelay(t, c.B, relaySpec{Listen: net.JoinHostPort(front, "0"), Target: server, Kind: uint8(engine.Wire)})
			var wg sync.WaitGroup
			turn := make(chan struct{}, 12)
			most := uint32(512 << 10)
			if n > 100 {
				most = 4 << 20
			}
			want := make(map[string][]plan) // of one port one after the other
			made := 0
			spliced, attempts := 0, 0
			var retransmits uint64
			why := make(map[string]int)
			round := func() {
				made += n
				for i := range n {
					turn <- struct{}{}
					conn := dialRelay(t, c.A, r)
					p := plan{Up: rand.Uint32N(most), Down: rand.Uint32N(most), Seed: uint64(i), Abort: i%8 == 7}
					if p.Abort {
						p.Down += 13 << 20
						if err := conn.SetReadBuffer(1 << 20); err != nil { // it may grow to 32 MiB
							t.Fatal(err)
						}
					}
					mu.Lock()
					client := conn.LocalAddr().String()
					want[client] = append(want[client], p)
					mu.Unlock()
					wg.Go(func() {
						defer func() { <-turn }()
						err := binary.Write(conn, binary.BigEndian, p)
						switch {
						case err != nil:
						case p.Abort:
							err = p.abort(conn)
						default:
							err = p.converse(conn, p.Up, p.Down, 'a', 'c')
						}
						if err != nil {
							t.Errorf("%v, %+v: %v", conn.LocalAddr(), p, err)
						}
						conn.Close()
					})
					if i == 0 {
						wg.Wait() // the listener may have learned something
					}
				}
				wg.Wait()
				for range n {
					res := r.result(t)
					plans := want[res.Client]
					if !slices.ContainsFunc(plans, func(p plan) bool { return p.ended(res) == nil }) {
						t.Errorf("of %+v: %v", plans, plans[0].ended(res))
					}
					if res.Engine == "wire" {
						spliced++
						attempts = max(attempts, res.Wire.Attempts)
						retransmits += res.Wire.Retransmits[0] + res.Wire.Retransmits[1]
					} else {
						why[res.Refused]++
					}
				}
			}
			// On a busy machine a connection can be over before its turn comes.
			for round(); tc.refused == "" && spliced*4 < made && made < 10*n; {
				round()
			}
			mu.Lock()
			defer mu.Unlock()
			for _, err := range serverErrs {
				if err != nil {
					t.Error("server:", err)
				}
			}
			t.Logf("%d connections, %d spliced (%d attempts at most, %d segments twice), not spliced: %v", made, spliced, attempts, retransmits, why)
			switch {
			case tc.refused != "" && why[tc.refused] < made*8/10:
				t.Errorf("want them refused: %s", tc.refused)
			case tc.refused == "" && spliced*4 < made:
				t.Error("too few were spliced")
			}
		})
	}
}

// ended says whether that is what a session says when a plan was carried out.
func (p plan) ended(res relayResult) error {
	up := int64(p.Up) + int64(binary.Size(p))
	if !p.Abort {
		if res.AToB != up || res.BToA != int64(p.Down) || res.ReasonA != "eof" || res.ReasonB != "eof" || res.Err != "" {
			return fmt.Errorf("%+v, want %d and %d bytes, eof", res, up, p.Down)
		}
		return nil
	}
	if res.AToB > up || res.BToA > int64(p.Down) || res.BToA < int64(p.Down)/2 ||
		res.ReasonA != "reset-by-source" || res.ReasonB != "reset-by-drain" {
		return fmt.Errorf("%+v, want at most %d bytes, and between half and all of %d; a reset by the client", res, up, p.Down)
	}
	return nil
}
