package engine_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/engine"
	"github.com/spliced-io/spliced/internal/testnet"
)

// A plan is what one connection does.
type plan struct {
	Up, Down uint32 // bytes
	Seed     uint64
}

// say writes n bytes in pieces of random sizes, with pauses in between.
func (p plan) say(w io.Writer, n uint32, who byte) error {
	data := rand.NewChaCha8([32]byte{byte(p.Seed), byte(p.Seed >> 8), who})
	rng := rand.New(rand.NewPCG(p.Seed, uint64(who)))
	for pauses := 0; n > 0; {
		piece := make([]byte, min(n, 1+rng.Uint32N(1<<uint(rng.IntN(20)))))
		_, _ = data.Read(piece)
		if _, err := w.Write(piece); err != nil {
			return err
		}
		n -= uint32(len(piece))
		if pauses < 4 && rng.IntN(8) == 0 {
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
	if err == nil {
		err = sayErr
	}
	return err
}

func TestWireIntegrity(t *testing.T) {
	ctx := context.Background()
	off := func(key string, of ...func(*testnet.Chain) *testnet.Namespace) func(*testing.T, *testnet.Chain) {
		return func(t *testing.T, c *testnet.Chain) {
			for _, ns := range of {
				if err := ns(c).Sysctl(key, "0"); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	nsA := func(c *testnet.Chain) *testnet.Namespace { return c.A }
	nsB := func(c *testnet.Chain) *testnet.Namespace { return c.B }
	nsC := func(c *testnet.Chain) *testnet.Namespace { return c.C }
	for _, tc := range []struct {
		name    string
		prepare func(*testing.T, *testnet.Chain)
		refused string
	}{
		{"plain", func(*testing.T, *testnet.Chain) {}, ""},
		{"loss", func(t *testing.T, c *testnet.Chain) {
			for _, ns := range []*testnet.Namespace{c.A, c.C} {
				if err := ns.Lose(ctx, 10); err != nil {
					t.Fatal(err)
				}
			}
		}, ""},
		{"no timestamps", off("net.ipv4.tcp_timestamps", nsB), ""},
		{"no SACK", off("net.ipv4.tcp_sack", nsB), ""},
		{"windows of different scale", func(t *testing.T, c *testnet.Chain) {
			if err := c.A.Sysctl("net.ipv4.tcp_rmem", "4096 65536 262144"); err != nil {
				t.Fatal(err)
			}
			off("net.ipv4.tcp_window_scaling", nsC)(t, c)
		}, ""},
		{"timestamps on one leg", off("net.ipv4.tcp_timestamps", nsC), "wire-tcp-options"},
		{"SACK on one leg", off("net.ipv4.tcp_sack", nsA), "wire-tcp-options"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := wireChain(t)
			tc.prepare(t, c)
			var mu sync.Mutex
			var serverErrs []error
			server := serve(t, c.C, testnet.AddrC, func(conn *net.TCPConn) {
				var p plan
				err := binary.Read(conn, binary.BigEndian, &p)
				if err == nil {
					err = p.converse(conn, p.Down, p.Up, 'c', 'a')
				}
				mu.Lock()
				defer mu.Unlock()
				serverErrs = append(serverErrs, err)
			})
			r := startRelay(t, c.B, relaySpec{Listen: testnet.AddrBA + ":0", Target: server, Kind: uint8(engine.Wire)})
			n := handOvers(20)
			var wg sync.WaitGroup
			turn := make(chan struct{}, 10)
			want := make(map[string]plan)
			for i := range n {
				turn <- struct{}{}
				conn := dialRelay(t, c.A, r)
				p := plan{Up: rand.Uint32N(2 << 20), Down: rand.Uint32N(2 << 20), Seed: uint64(i)}
				mu.Lock()
				want[conn.LocalAddr().String()] = p
				mu.Unlock()
				wg.Go(func() {
					defer func() { <-turn }()
					err := binary.Write(conn, binary.BigEndian, p)
					if err == nil {
						err = p.converse(conn, p.Up, p.Down, 'a', 'c')
					}
					if err != nil {
						t.Errorf("%v, %+v: %v", conn.LocalAddr(), p, err)
					}
					conn.Close()
				})
			}
			wg.Wait()
			spliced, attempts := 0, 0
			var retransmits uint64
			why := make(map[string]int)
			for range n {
				res := r.result(t)
				p := want[res.Client]
				wantEOF(t, res, int64(p.Up)+16, int64(p.Down))
				if res.Engine == "wire" {
					spliced++
					attempts = max(attempts, res.Wire.Attempts)
					retransmits += res.Wire.Retransmits[0] + res.Wire.Retransmits[1]
				} else {
					why[res.Refused]++
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for _, err := range serverErrs {
				if err != nil {
					t.Error("server:", err)
				}
			}
			t.Logf("%d connections, %d spliced (%d attempts at most, %d segments twice), not spliced: %v", n, spliced, attempts, retransmits, why)
			switch {
			case tc.refused != "" && why[tc.refused] < n*9/10:
				t.Errorf("want them refused: %s", tc.refused)
			case tc.refused == "" && spliced < n/3:
				t.Error("too few were spliced")
			}
		})
	}
}
