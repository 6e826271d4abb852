package bpf_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/spliced-io/spliced/internal/testnet"
)

// A load is traffic from A to C that never ends. It counts what it has done: the bytes of a TCP
// stream, exchanges of 64 bytes by TCP, or UDP datagrams of 64 bytes.
type load struct {
	name  string
	start func(t *testing.T, c *testnet.Chain, done *atomic.Int64) (stop func())
}

var loads = []load{
	{"stream", func(t *testing.T, c *testnet.Chain, done *atomic.Int64) func() {
		from, to := streamOfOthers(t, c)
		return play(from, to, func() error {
			_, err := from.Write(make([]byte, 256<<10))
			return err
		}, func(b []byte) error {
			n, err := to.Read(b)
			done.Add(int64(n))
			return err
		})
	}},
	{"exchanges", func(t *testing.T, c *testnet.Chain, done *atomic.Int64) func() {
		from, to := streamOfOthers(t, c)
		var b [64]byte
		return play(from, to, func() error {
			_, err := from.Write(b[:])
			if err == nil {
				_, err = io.ReadFull(from, b[:])
			}
			done.Add(1)
			return err
		}, func(b []byte) error {
			_, err := io.ReadFull(to, b[:64])
			if err == nil {
				_, err = to.Write(b[:64])
			}
			return err
		})
	}},
	{"datagrams", func(t *testing.T, c *testnet.Chain, done *atomic.Int64) func() {
		var to net.PacketConn
		err := c.C.Do(func() (err error) {
			to, err = net.ListenPacket("udp", testnet.AddrC+":0")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		from, err := c.A.Dial(t.Context(), "udp", to.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		// The way to C's socket is part of the sender's call: whether it has room there does not count.
		var b [64]byte
		return play(from, to, func() error {
			_, err := from.Write(b[:])
			if err == nil {
				done.Add(1)
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			return nil // lost, as any can be
		}, func(b []byte) error {
			_, _, err := to.ReadFrom(b)
			return err
		})
	}},
}

func streamOfOthers(t *testing.T, c *testnet.Chain) (from, to net.Conn) {
	t.Helper()
	ln, err := c.C.Listen("tcp", testnet.AddrC+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if from, err = c.A.Dial(ctx, "tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if to, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	return from, to
}

// play has two ends do something again and again, until it is stopped.
func play(from, to io.Closer, near func() error, far func(b []byte) error) (stop func()) {
	var gone sync.WaitGroup
	gone.Go(func() {
		for near() == nil {
		}
	})
	gone.Go(func() {
		for b := make([]byte, 256<<10); far(b) == nil; {
		}
	})
	return func() {
		from.Close()
		to.Close()
		gone.Wait()
	}
}

// What traffic of others loses when the program is on its interfaces. SPLICED_OTHERS says in how
// many pairs of slices of a tenth of a second (docs/wire.md: 100), and asks for it; SPLICED_FLOWS
// how many pairs of flows are in the table, 1,000 else. Each load runs on and on, while the program
// comes and goes.
func TestWireCostToOthers(t *testing.T) {
	rounds, err := strconv.Atoi(os.Getenv("SPLICED_OTHERS"))
	if err != nil {
		t.Skip("a measurement, which SPLICED_OTHERS asks for")
	}
	testnet.Need(t, "root", "netns", "bpf")
	flows := 1000
	if n, err := strconv.Atoi(os.Getenv("SPLICED_FLOWS")); err == nil {
		flows = n
	}
	testnet.Leaks(t)
	o := loadWire(t)
	for i := range flows {
		insertPair(t, o, i)
	}
	empty, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, wireNext), asm.Return()}, License: "GPL",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	c, err := testnet.NewChain()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, l := range loads {
		t.Run(l.name, func(t *testing.T) {
			var done atomic.Int64
			stop := l.start(t, c, &done)
			defer stop()
			slice := func(p *ebpf.Program) float64 {
				detach := func() {}
				if p != nil {
					detach = attachIngress(t, c.B, p)
				}
				const settle, length = 20 * time.Millisecond, 100 * time.Millisecond
				time.Sleep(settle)
				n, began := done.Load(), time.Now()
				time.Sleep(length)
				rate := float64(done.Load()-n) / time.Since(began).Seconds()
				detach()
				if rate == 0 {
					t.Fatal("nothing moves")
				}
				return rate
			}
			slice(nil) // the first of all is slower
			// In turn, in each order: without a program, with this one, with one that does
			// nothing, and without again.
			in := [4]*ebpf.Program{1: o.WireIngress, 2: empty}
			var of [len(in)][]float64
			for i := range rounds {
				var rates [len(in)]float64
				for k := range in {
					at := (i + k) % len(in)
					rates[at] = slice(in[at])
				}
				for k, r := range rates {
					of[k] = append(of[k], r/rates[0])
				}
			}
			for k, what := range []string{1: "with the program", 2: "with an empty one", 3: "without, again"} {
				if what != "" {
					t.Logf("%s: %s of what it is without", what, ratios(of[k]))
				}
			}

			// Its own time, as the kernel counts it, which takes time too.
			detach := attachIngress(t, c.B, o.WireIngress)
			defer detach()
			counting, err := ebpf.EnableStats(0) // BPF_STATS_RUN_TIME
			if err != nil {
				t.Fatal(err)
			}
			defer counting.Close()
			was, err := o.WireIngress.Stats()
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(200 * time.Millisecond)
			is, err := o.WireIngress.Stats()
			if err != nil {
				t.Fatal(err)
			}
			if n := is.RunCount - was.RunCount; n > 0 {
				t.Logf("%v for each of %d packets", (is.Runtime-was.Runtime)/time.Duration(n), n)
			}
		})
	}
}

// attachIngress puts a program on B's interfaces, and takes it away again.
func attachIngress(t *testing.T, b *testnet.Namespace, p *ebpf.Program) (detach func()) {
	t.Helper()
	var links []link.Link
	err := b.Do(func() error {
		for _, name := range []string{testnet.LinkBA, testnet.LinkBC} {
			i, err := net.InterfaceByName(name)
			if err != nil {
				return err
			}
			l, err := link.AttachTCX(link.TCXOptions{Interface: i.Index, Program: p, Attach: ebpf.AttachTCXIngress})
			if err != nil {
				return err
			}
			links = append(links, l)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		var errs []error
		for _, l := range links {
			errs = append(errs, l.Close())
		}
		if err := errors.Join(errs...); err != nil {
			t.Error(err)
		}
	}
}

// ratios are the median of some, all and the middle half of them.
func ratios(r []float64) string {
	r = slices.Sorted(slices.Values(r))
	return fmt.Sprintf("%.3f [%.3f–%.3f], half of %d within %.3f–%.3f",
		r[len(r)/2], r[0], r[len(r)-1], len(r), r[len(r)/4], r[len(r)*3/4])
}
