package engine_test

import (
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/spliced-io/spliced/internal/engine"
	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/testnet"
)

// What happens around spliced connections: other programs, settings, interfaces and relays.

// echoStream sends all back, and ends with its client.
func echoStream(c *net.TCPConn) {
	_, _ = io.Copy(struct{ io.Writer }{c}, c)
	_ = c.CloseWrite()
}

// thereAndBack streams size bytes to a server that sends them back, and half-closes. at says what is to be done when
// so many MiB are back.
func thereAndBack(t *testing.T, conn *net.TCPConn, seed byte, size int64, at map[int64]func()) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := io.CopyN(struct{ io.Writer }{conn}, rand.NewChaCha8([32]byte{seed}), size)
		if err = errors.Join(err, conn.CloseWrite()); err != nil {
			t.Error(err)
		}
	})
	h := sha256.New()
	for n := int64(0); n < size; {
		m, err := io.CopyN(h, conn, min(1<<20, size-n))
		n += m
		if err != nil {
			t.Errorf("after %d bytes of %d: %v", n, size, err)
			break
		}
		if f := at[n>>20]; f != nil {
			f()
		}
	}
	wg.Wait()
	if [32]byte(h.Sum(nil)) != hashOf(seed, size) {
		t.Error("bytes differ")
	}
}

// A stranger is a tcx program of somebody else, which answers verdict for one of so many packets, and leaves
// the others alone.
type stranger struct {
	name    string
	attach  ebpf.AttachType
	where   link.Anchor
	oneOf   int32
	verdict int32
}

func (s *stranger) attachTo(t *testing.T, ns *testnet.Namespace, name string) link.Link {
	t.Helper()
	return attach(t, ns, name, s.attach, s.where,
		asm.FnGetPrandomU32.Call(),
		asm.Mod.Imm32(asm.R0, s.oneOf),
		asm.JNE.Imm(asm.R0, 0, "next"),
		asm.Mov.Imm(asm.R0, s.verdict),
		asm.Return(),
		asm.Mov.Imm(asm.R0, tcxNext).WithSymbol("next"),
		asm.Return(),
	)
}

const tcxNext = -1

func attach(t *testing.T, ns *testnet.Namespace, name string, at ebpf.AttachType, where link.Anchor, program ...asm.Instruction) link.Link {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: program})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var l link.Link
	err = ns.Do(func() error {
		i, err := net.InterfaceByName(name)
		if err == nil {
			l, err = link.AttachTCX(link.TCXOptions{Interface: i.Index, Program: p, Attach: at, Anchor: where})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // a second time, mostly
	return l
}

// Other programs on the interfaces, before and behind ours, that lose packets: from before a hand-over, and ones that
// come and go while the flow is spliced.
func TestWireBesidePrograms(t *testing.T) {
	const drop, size = 2, 48 << 20
	for _, s := range []stranger{
		{"before", ebpf.AttachTCXIngress, link.Head(), 64, drop},
		{"behind, where nothing of the flow comes by", ebpf.AttachTCXIngress, link.Tail(), 1, drop},
		{"on the way out", ebpf.AttachTCXEgress, link.Head(), 64, drop},
	} {
		t.Run(s.name, func(t *testing.T) {
			c := wireChain(t)
			server := serve(t, c.C, testnet.AddrC, echoStream)
			r := startRelay(t, c.B, relaySpec{Listen: testnet.AddrBA + ":0", Target: server, Kind: uint8(engine.Wire)})
			if s.oneOf > 1 {
				defer s.attachTo(t, c.B, testnet.LinkBA).Close()
			}
			conn := dialRelay(t, c.A, r)
			n := pingUntilWire(t, r, conn)
			var l link.Link
			thereAndBack(t, conn, 3, size, map[int64]func(){
				8:  func() { l = s.attachTo(t, c.B, testnet.LinkBC) },
				32: func() { _ = l.Close() },
			})
			conn.Close()
			res := r.result(t)
			wantEOF(t, res, n+size, n+size)
			if res.Engine != "wire" || res.Wire.Errors != [2]uint64{} {
				t.Errorf("%+v", res)
			}
		})
	}
}

// One that ends the chain before ours hands the packets of spliced flows to B's stack, which knows no such connection. Its
// RST ends the flow, and the session says so.
func TestWireChainIsEnded(t *testing.T) {
	const pass = 0
	c := wireChain(t)
	one := spliceOne(t, c)
	within(t, wirePatience, "the sockets are gone", func() bool { return sockets(t, c.B) == 0 })
	s := stranger{"", ebpf.AttachTCXIngress, link.Head(), 1, pass}
	s.attachTo(t, c.B, testnet.LinkBA)
	// What it acknowledges late is answered so too: it can be the write that finds out.
	_, err := one.client.Write(make([]byte, 64))
	if err == nil {
		_, err = one.client.Read(make([]byte, 64))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client has got %v, want a reset", err)
	}
}

// Settings of the kernels that change while a connection is spliced hold for others. It can be taken back into sockets
// after that too.
func TestWireSettingsChange(t *testing.T) {
	const size = 64 << 20
	c := wireChain(t)
	server := serve(t, c.C, testnet.AddrC, echoStream)
	r := startRelay(t, c.B, relaySpec{Listen: testnet.AddrBA + ":0", Target: server, Kind: uint8(engine.Wire)})
	conn := dialRelay(t, c.A, r)
	n := pingUntilWire(t, r, conn)
	at := make(map[int64]func())
	steps := [][2]string{
		{"tcp_timestamps", "0"},
		{"tcp_timestamps", "2"},
		{"tcp_sack", "0"},
		{"tcp_dsack", "0"},
		{"tcp_window_scaling", "0"},
		{"tcp_rmem", "4096 8192 16384"},
		{"tcp_wmem", "4096 8192 16384"},
		{"tcp_mtu_probing", "2"},
		{"tcp_tw_reuse", "1"},
		{"ip_local_port_range", "50000 50100"},
		{"ip_forward", "0"},
		{"conf.all.rp_filter", "1"},
		{"conf.all.rp_filter", "2"},
		{"conf.all.accept_local", "1"},
		{"tcp_ecn", "1"},
		{"tcp_early_demux", "0"},
		{"ip_early_demux", "0"},
		{"ip_default_ttl", "3"},
		{"ip_no_pmtu_disc", "3"},
		{"tcp_timestamps", "0"},
	}
	for i, s := range steps {
		at[int64(4+i)] = func() {
			for _, ns := range []*testnet.Namespace{c.A, c.B, c.C} {
				if err := ns.Sysctl("net.ipv4."+s[0], s[1]); err != nil {
					t.Error(err)
				}
			}
		}
	}
	at[int64(6+len(steps))] = func() {
		if _, err := io.WriteString(r.stdin, "stop\n"); err != nil {
			t.Error(err)
		}
	}
	thereAndBack(t, conn, 3, size, at)
	conn.Close()
	stopped, back, rest := r.result(t), r.result(t), r.result(t)
	if stopped.Engine != "wire" || stopped.ReasonA != "stopped" || stopped.Err != "" || !stopped.Wire.Returned || back.Flows != 1 {
		t.Errorf("%+v, then %+v", stopped, back)
	}
	if stopped.AToB+rest.AToB != n+size || stopped.BToA+rest.BToA != n+size {
		t.Errorf("%d + %d and %d + %d bytes, want %d", stopped.AToB, rest.AToB, stopped.BToA, rest.BToA, n+size)
	}
}

// B's interfaces go down and come up again while a connection is spliced.
func TestWireLinksFlap(t *testing.T) {
	const size = 48 << 20
	c := wireChain(t)
	server := serve(t, c.C, testnet.AddrC, echoStream)
	r := startRelay(t, c.B, relaySpec{Listen: testnet.AddrBA + ":0", Target: server, Kind: uint8(engine.Wire)})
	conn := dialRelay(t, c.A, r)
	n := pingUntilWire(t, r, conn)
	flap := func(link string) func() {
		return func() {
			for _, to := range []string{"down", "up"} {
				if err := c.B.Run(t.Context(), "", "ip", "link", "set", link, to); err != nil {
					t.Error(err)
				}
			}
		}
	}
	thereAndBack(t, conn, 3, size, map[int64]func(){8: flap(testnet.LinkBC), 20: flap(testnet.LinkBA), 30: flap(testnet.LinkBC), 31: flap(testnet.LinkBA)})
	conn.Close()
	res := r.result(t)
	wantEOF(t, res, n+size, n+size)
	if res.Engine != "wire" {
		t.Errorf("%+v", res)
	}
}

// Bundles of more than 64 KiB (BIG TCP) go across: of IPv6 the kernel gives them a header that no packet on a link has.
func TestWireLargeBundles(t *testing.T) {
	const size, most = 96 << 20, 200_000
	for _, tc := range []struct{ name, front, back string }{
		{"v4", testnet.AddrBA, testnet.AddrC},
		{"v6", testnet.Addr6BA, testnet.Addr6C},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := wireChain(t)
			err := errors.Join(c.A.SetBundles(testnet.LinkAB, most), c.B.SetBundles(testnet.LinkBA, most),
				c.B.SetBundles(testnet.LinkBC, most), c.C.SetBundles(testnet.LinkCB, most))
			if err != nil {
				t.Fatal(err)
			}
			large, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer large.Close()
			attach(t, c.B, testnet.LinkBC, ebpf.AttachTCXEgress, link.Head(),
				asm.LoadMem(asm.R2, asm.R1, 0, asm.Word), // __sk_buff.len
				asm.JLE.Imm(asm.R2, 1<<16+100, "next"),
				asm.LoadMapValue(asm.R1, large.FD(), 0),
				asm.Mov.Imm(asm.R2, 1),
				asm.StoreXAdd(asm.R1, asm.R2, asm.DWord),
				asm.Mov.Imm(asm.R0, tcxNext).WithSymbol("next"),
				asm.Return(),
			)
			server := serve(t, c.C, tc.back, echoStream)
			r := startRelay(t, c.B, relaySpec{Listen: net.JoinHostPort(tc.front, "0"), Target: server, Kind: uint8(engine.Wire)})
			conn := dialRelay(t, c.A, r)
			n := pingUntilWire(t, r, conn)
			thereAndBack(t, conn, 3, size, nil)
			conn.Close()
			res := r.result(t)
			wantEOF(t, res, n+size, n+size)
			if res.Engine != "wire" || res.Wire.Errors != [2]uint64{} {
				t.Errorf("%+v", res)
			}
			var count uint64
			if err := large.Lookup(uint32(0), &count); err != nil || count == 0 {
				t.Errorf("%d bundles of more than 64 KiB, %v: this shows nothing", count, err)
			}
			t.Logf("%d bundles of more than 64 KiB", count)
		})
	}
}

// Two relays in a row on one machine, each with an instance of its own. Both are killed in the middle of transfers, and the
// next ones take over what goes through both.
func TestWireRelaysInSeries(t *testing.T) {
	const flows, size = 4, 16 << 20
	for _, tc := range []struct{ name, front, middle, back string }{
		{"by lo", testnet.AddrBA, "127.0.0.1", testnet.AddrC},
		{"by another address", testnet.AddrBA, testnet.AddrBC, testnet.AddrC},
		{"all on lo", "127.0.0.1", "127.0.0.1", "127.0.0.1"},
		{"by another address, v6", testnet.Addr6BA, testnet.Addr6BC, testnet.Addr6C},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := wireChain(t)
			root := testnet.BPFFS(t)
			clients, servers, ends := c.A, c.C, 0 // sockets on B of the clients and servers
			if tc.back == tc.front {
				clients, servers, ends = c.B, c.B, 2*flows
			}
			specs := [2]relaySpec{
				{Listen: net.JoinHostPort(tc.middle, "0"), Target: serve(t, servers, tc.back, echoStream)},
				{Listen: net.JoinHostPort(tc.front, "0")},
			}
			var relays [2]*relay
			start := func(i, adopts int) {
				specs[i].Kind, specs[i].Policy = uint8(engine.Wire), engine.WirePolicy{Instance: string(rune('a' + i)), Root: root}
				relays[i] = startRelay(t, c.B, specs[i])
				if n := relays[i].adopted(t); n != adopts {
					t.Errorf("relay %d has adopted %d, want %d", i, n, adopts)
				}
			}
			start(0, 0)
			specs[1].Target = relays[0].addr
			start(1, 0)
			var conns []*net.TCPConn
			for range flows {
				conns = append(conns, dialRelay(t, clients, relays[1]))
			}
			n := int64(0)
			within(t, wirePatience, "all are spliced", func() bool {
				for _, conn := range conns {
					exchange(t, conn, make([]byte, 64))
				}
				n += 64
				return relays[0].spliced(t) == flows && relays[1].spliced(t) == flows
			})
			within(t, wirePatience, "none has a socket between its ends", func() bool { return sockets(t, c.B) == ends })
			var wg sync.WaitGroup
			killed := make(chan struct{})
			for i, conn := range conns {
				wg.Go(func() {
					thereAndBack(t, conn, byte(i), size, map[int64]func(){4: func() { <-killed }})
					conn.Close()
				})
			}
			for _, r := range relays {
				r.kill(t)
			}
			close(killed)
			start(0, flows)
			start(1, flows)
			wg.Wait()
			for _, r := range relays {
				for range flows {
					res := r.result(t)
					wantEOF(t, res, n+size, n+size)
					if res.Engine != "wire" {
						t.Errorf("%+v", res)
					}
				}
				r.end()
			}
			for _, spec := range specs {
				if err := wire.Purge(wire.Config{Instance: spec.Policy.Instance, Root: root}); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
