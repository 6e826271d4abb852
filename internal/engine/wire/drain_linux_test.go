package wire_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/sys"
	"github.com/spliced-io/spliced/internal/testnet"
)

// deaf loses TCP segments of some sizes (a condition of nft) that arrive in a namespace. It
// lasts until hear is called.
func deaf(t *testing.T, ns *testnet.Namespace, sizes string) (hear func()) {
	t.Helper()
	run := func(rules string) {
		t.Helper()
		if err := ns.Run(context.Background(), rules, "nft", "-f", "-"); err != nil {
			t.Fatal(err)
		}
	}
	run(`
		table inet deaf {
			chain arriving {
				type filter hook prerouting priority -300; policy accept;
				meta l4proto tcp ` + sizes + ` counter drop
			}
		}`)
	return func() { run("delete table inet deaf\n") }
}

// lost is how many segments a namespace that is deaf has lost.
func lost(t *testing.T, ns *testnet.Namespace) (n int) {
	t.Helper()
	var list bytes.Buffer
	cmd := exec.Command("nft", "list", "table", "inet", "deaf")
	cmd.Stdout = &list
	if err := errors.Join(ns.Start(cmd), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	_, counted, _ := strings.Cut(list.String(), "counter packets ")
	if _, err := fmt.Sscan(counted, &n); err != nil {
		t.Fatalf("%v: %s", err, &list)
	}
	return n
}

// counter reads one of a namespace's counters of TCP.
func counter(t *testing.T, ns *testnet.Namespace, name string) int {
	t.Helper()
	stats, err := ns.ReadProcNet("netstat")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(stats), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		if at := slices.Index(names, name); at > 0 {
			n, err := strconv.Atoi(values[at])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no " + name)
	return 0
}

// A socket has lost all that it has to deliver at the switch, and the other direction
// moves on meanwhile: what the socket says is older then than what its peer has been told,
// who accepts its data and does not take note of its clock. The socket is not to
// take that for a sign that its segments are needless, nor for a long way.
func TestDrainAfterLoss(t *testing.T) {
	for _, pl := range places()[:2] {
		t.Run(pl.name, func(t *testing.T) {
			c := newChain(t)
			testnet.Need(t, "peers")
			b := pl.open(t, c)
			p := openPlane(t, c, wire.Config{}) // last: without a pair it soon ends
			pair := consider(t, c, p, b, func() {})
			learned(t, pair)

			// Twenty segments: more than a socket sends at first.
			data := make([]byte, 20*1388)
			_, _ = rand.NewChaCha8([32]byte{}).Read(data)
			if _, err := b.client.Write(data); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(b.a, make([]byte, len(data))); err != nil {
				t.Fatal(err)
			}
			hear := deaf(t, c.C, "meta length > 500")
			if _, err := b.b.Write(data); err != nil {
				t.Fatal(err)
			}
			if err := pair.Switch(0, true); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				carry(t, b.server, b.client, 100)
			}
			eventually(t, "the client has acknowledged it", func() bool {
				v, err := pair.Look()
				return err == nil && v.Delivered[1] == 300
			})
			// Behind what is missing, so that the server says so. The program lets it
			// across, and C loses it: its sender sends it again.
			if _, err := b.client.Write(data[:1000]); err != nil {
				t.Fatal(err)
			}
			if drained, err := pair.Drained(); drained || err != nil {
				t.Fatalf("drained: %v, %v, before anything was delivered", drained, err)
			}
			hear()
			began := time.Now()
			settle(t, pair)
			t.Logf("drained after %v", time.Since(began))
			pair.Dissolve()
			got := make([]byte, len(data)+1000)
			_ = b.server.SetReadDeadline(time.Now().Add(patience))
			if n, err := io.ReadFull(b.server, got); err != nil {
				t.Fatalf("%d bytes, %v", n, err)
			}
			if want := append(bytes.Clone(data), data[:1000]...); !bytes.Equal(got, want) {
				t.Error("bytes differ")
			}
			carry(t, b.client, b.server, 1<<20)
			carry(t, b.server, b.client, 1<<20)
			pair.Abort()
		})
	}
}

// The socket's last acknowledgements are lost, and with them how far its window has grown. The peer hears
// of that first by what goes across, which has moved on. It must not be let that far: it would take the socket's segments,
// which acknowledge what they did at the switch, for too old by more than the largest window that it has seen
// (RFC 5961, 5), and what is in them for nothing, for ever.
func TestDrainAfterLostWindow(t *testing.T) {
	for i, pl := range places()[:2] {
		t.Run(pl.name, func(t *testing.T) {
			c := newChain(t)
			testnet.Need(t, "peers")
			b := pl.open(t, c)
			p := openPlane(t, c, wire.Config{}) // last: without a pair it soon ends
			pair := consider(t, c, p, b, func() {})
			learned(t, pair)

			// What B's sockets say has its TTL, and what goes across another one.
			hear := deaf(t, c.C, []string{"ip ttl 64", "ip6 hoplimit 64"}[i])
			const few = 5 * 1388 // half of what a sender may have under way at first
			data := make([]byte, 4<<20)
			_, _ = rand.NewChaCha8([32]byte{}).Read(data)
			if _, err := b.server.Write(data[:few]); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(data))
			_ = b.a.SetReadDeadline(time.Now().Add(patience))
			_ = b.b.SetReadDeadline(time.Now().Add(patience))
			_ = b.client.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.ReadFull(b.b, got[:few]); err != nil {
				t.Fatal(err)
			}
			if _, err := b.a.Write(got[:few]); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(b.client, got[:few]); err != nil {
				t.Fatal(err)
			}
			// This the socket has to deliver as long as the server is deaf to it.
			if _, err := b.client.Write(data[:few]); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(b.a, got[:few]); err != nil {
				t.Fatal(err)
			}
			if _, err := b.b.Write(got[:few]); err != nil {
				t.Fatal(err)
			}
			if err := pair.Switch(0, true); err != nil {
				t.Fatal(err)
			}
			// As much as the program lets the server send: more than it knew of at the switch.
			ended := make(chan error, 1)
			go func() {
				_, err := b.server.Write(data)
				ended <- err
			}()
			if _, err := io.ReadFull(b.client, got[:few]); err != nil {
				t.Fatal(err)
			}
			n, quiet := few, 300*time.Millisecond
			for n < len(data) {
				_ = b.client.SetReadDeadline(time.Now().Add(quiet))
				m, err := b.client.Read(got[n:])
				if n += m; err != nil {
					break
				}
			}
			t.Logf("the server could send %d bytes", n)
			if drained, err := pair.Drained(); drained || err != nil {
				t.Fatalf("drained: %v, %v, before anything was delivered", drained, err)
			}
			hear()
			began := time.Now()
			_ = b.client.SetReadDeadline(time.Time{})
			settle(t, pair)
			t.Logf("drained after %v", time.Since(began))
			pair.Dissolve()
			_ = b.client.SetReadDeadline(time.Now().Add(patience))
			if m, err := io.ReadFull(b.client, got[n:]); err != nil {
				t.Fatalf("%d bytes of %d, %v", n+m, len(got), err)
			}
			if err := <-ended; err != nil || !bytes.Equal(got, data) {
				t.Error("bytes differ: ", err)
			}
			_ = b.server.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.ReadFull(b.server, got[:few]); err != nil || !bytes.Equal(got[:few], data[:few]) {
				t.Error("the server has not got it: ", err)
			}
			carry(t, b.client, b.server, 1<<20)
			pair.Abort()
		})
	}
}

// What was lost on its way to the socket before the cut can come again in one segment with what is behind it: that goes
// across whole, and the socket never gets it. It need not: its receiver has it.
func TestDrainFilledAcross(t *testing.T) {
	for i, pl := range places()[:2] {
		t.Run(pl.name, func(t *testing.T) {
			c := newChain(t)
			b := pl.open(t, c)
			p := openPlane(t, c, wire.Config{}) // last: without a pair it soon ends
			pair := consider(t, c, p, b, func() {})
			learned(t, pair)
			if err := pair.Switch(0, true); err != nil {
				t.Fatal(err)
			}
			const lost = 500
			from, to := b.client, b.server
			if i > 0 {
				from, to = to, from
			}
			if err := pair.PassUp(i, lost); err != nil {
				t.Fatal(err)
			}
			if drained, err := pair.Drained(); drained || err != nil {
				t.Fatalf("drained: %v, %v, and the socket lacks something", drained, err)
			}
			carry(t, from, to, 2*lost) // one segment
			settle(t, pair)
			pair.Dissolve()
			carry(t, from, to, 1<<20)
			carry(t, to, from, 1<<20)
			if v, err := pair.Look(); err != nil || v.Delivered[i] != 2*lost+1<<20 || v.Delivered[1-i] != 1<<20 {
				t.Errorf("%+v, %v: bytes were delivered to sockets", v.Delivered, err)
			}
			pair.Abort()
		})
	}
}

// A segment that comes at the moment of the switch and has overtaken a lost one leaves a hole in what the socket has. It lies before
// the cut: the socket gets what fills it, delivers all, and the sender hears of that from the receiver, not from the socket, which it
// takes for old as soon as the other direction has moved on. More may have gone across meanwhile.
func TestDrainHole(t *testing.T) {
	for i, pl := range places()[:2] {
		for _, behind := range []int{0, 1000, 1 << 20} {
			t.Run(fmt.Sprintf("%s, %d bytes go across", pl.name, behind), func(t *testing.T) {
				c := newChain(t)
				testnet.Need(t, "peers")
				b := pl.open(t, c)
				p := openPlane(t, c, wire.Config{}) // last: without a pair it soon ends
				pair := consider(t, c, p, b, func() {})
				eventually(t, "learned", func() bool { return pair.Learn([2]int{}) == nil })
				from, to := b.client, b.server
				in, out := b.a, b.b
				if i > 0 {
					from, to, in, out = to, from, out, in
				}
				data := make([]byte, 2000+behind)
				_, _ = rand.NewChaCha8([32]byte{}).Read(data)
				if err := pair.Switch(0, true); err != nil {
					t.Fatal(err)
				}
				if err := pair.PassUp(i, 2000); err != nil {
					t.Fatal(err)
				}
				carry(t, to, from, 1000) // what the socket says is old now
				// Behind the program: it is to be lost, but not to be news.
				hear := deaf(t, c.B, "meta length > 500")
				if _, err := from.Write(data[:1000]); err != nil {
					t.Fatal(err)
				}
				eventually(t, "it is lost", func() bool { return lost(t, c.B) > 0 })
				hear()
				if _, err := from.Write(data[1000:2000]); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the socket has what has overtaken it", func() bool { return counter(t, c.B, "TCPOFOQueue") == 1 })
				ended := make(chan error, 1)
				go func() {
					_, err := from.Write(data[2000:])
					ended <- err
				}()
				got := make([]byte, len(data))
				began := time.Now()
				_ = in.SetReadDeadline(time.Now().Add(patience))
				if _, err := io.ReadFull(in, got[:2000]); err != nil || !bytes.Equal(got[:2000], data[:2000]) {
					t.Fatal("the socket has not got it: ", err)
				}
				t.Logf("filled after %v", time.Since(began))
				if _, err := out.Write(got[:2000]); err != nil {
					t.Fatal(err)
				}
				settle(t, pair)
				t.Logf("settled after %v", time.Since(began))
				pair.Dissolve()
				_ = to.SetReadDeadline(time.Now().Add(patience))
				if _, err := io.ReadFull(to, got); err != nil || !bytes.Equal(got, data) {
					t.Error("bytes differ: ", err)
				}
				if err := <-ended; err != nil {
					t.Error(err)
				}
				eventually(t, "the sender hears that it is filled", func() bool {
					n, err := sys.Unacked(fd(t, from))
					return err == nil && n == 0
				})
				carry(t, from, to, 1<<20)
				carry(t, to, from, 1<<20)
				pair.Abort()
			})
		}
	}
}

// A RST behind what went across ends the socket of its sender, which lacks that, and has a smaller window: nobody says it again.
func TestDrainReset(t *testing.T) {
	for i, pl := range places()[:2] {
		t.Run(pl.name, func(t *testing.T) {
			c := newChain(t)
			testnet.Need(t, "peers")
			b := &bench{}
			b.client, b.a = connectWith(t, c.A, c.B, pl.front, "", func(_, _ string, c syscall.RawConn) (err error) {
				cerr := c.Control(func(fd uintptr) {
					err = errors.Join(
						syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 1400),
						syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10),
					)
				})
				return errors.Join(err, cerr)
			})
			b.b, b.server = connect(t, c.B, c.C, pl.back)
			p := openPlane(t, c, wire.Config{}) // last: without a pair it soon ends
			pair := consider(t, c, p, b, func() {})
			defer pair.Abort()
			learned(t, pair)

			// What the socket has to deliver is lost; what goes across is not.
			hear := deaf(t, c.C, []string{"ip ttl 64", "ip6 hoplimit 64"}[i])
			defer hear()
			var message [1000]byte
			carry(t, b.client, b.a, int64(len(message)))
			if _, err := b.b.Write(message[:]); err != nil {
				t.Fatal(err)
			}
			if err := pair.Switch(0, true); err != nil {
				t.Fatal(err)
			}
			carry(t, b.server, b.client, 100) // with the server's window
			v, err := pair.Look()
			if err != nil {
				t.Fatal(err)
			}
			const across = 9 * 1388 // less than a sender may have under way at first
			info, err := sys.ReadTCPInfo(fd(t, b.a))
			if err != nil || info.ReceiveWindow >= across {
				t.Fatalf("a window of %d, %v: this shows nothing", info.ReceiveWindow, err)
			}
			if _, err := b.client.Write(make([]byte, across)); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it went across", func() bool {
				now, err := pair.Look()
				return err == nil && now.Flows[0].End == v.Flows[0].End+across
			})
			// Asked, the client's machine would say it again.
			if err := errors.Join(b.a.SetKeepAlive(false), b.client.SetLinger(0), b.client.Close()); err != nil {
				t.Fatal(err)
			}
			_ = b.a.SetReadDeadline(time.Now().Add(patience))
			if _, err := b.a.Read(message[:]); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the socket says %v, want that it was reset", err)
			}
		})
	}
}

// What a socket holds is read as it drains, and so it announces a larger window than at the switch. What its peer
// sends into that goes across, and the receiver need not have room for it: since Linux 6.17 it takes
// nothing of a bundle that ends beyond its window.
func TestDrainKeepsToRoom(t *testing.T) {
	for _, pl := range places()[:2] {
		t.Run(pl.name, func(t *testing.T) {
			c := newChain(t)
			b := &bench{}
			b.client, b.a = connectWith(t, c.A, c.B, pl.front, "", func(_, _ string, c syscall.RawConn) (err error) {
				cerr := c.Control(func(fd uintptr) { err = sys.SetWindowClamp(int(fd), 56<<10) })
				return errors.Join(err, cerr)
			})
			b.b, b.server = connectWith(t, c.B, c.C, pl.back, "", nil)
			p := openPlane(t, c, wire.Config{}) // last: without a pair it soon ends
			pair := consider(t, c, p, b, func() {})
			eventually(t, "learned", func() bool { return pair.Learn([2]int{}) == nil })
			// The socket has announced 56 KiB and the server 64. More they have no room for.
			for _, conn := range []*net.TCPConn{b.a, b.server} {
				if err := conn.SetReadBuffer(32 << 10); err != nil {
					t.Fatal(err)
				}
			}
			for _, conn := range []*net.TCPConn{b.client, b.a, b.b, b.server} {
				_ = conn.SetDeadline(time.Now().Add(patience))
			}
			const held = 48 << 10
			data := make([]byte, 1<<20)
			_, _ = rand.NewChaCha8([32]byte{}).Read(data)
			if _, err := b.client.Write(data[:held]); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the socket has it", func() bool {
				n, err := sys.Unread(fd(t, b.a))
				return err == nil && n == held
			})
			eventually(t, "switched", func() bool {
				err := pair.Switch(0, false)
				if err != nil && err != syscall.EAGAIN {
					t.Fatal(err)
				}
				return err == nil
			})
			if _, err := io.CopyN(b.b, b.a, held); err != nil {
				t.Fatal(err)
			}
			written := make(chan error, 1)
			go func() {
				_, err := b.client.Write(data[held:])
				written <- err
			}()
			settle(t, pair)
			pair.Dissolve()
			got := make([]byte, len(data))
			if _, err := io.ReadFull(b.server, got); err != nil {
				t.Fatal(err)
			}
			if err := <-written; err != nil || !bytes.Equal(got, data) {
				t.Error("bytes differ: ", err)
			}
			if n, err := c.C.Counter("TcpExtBeyondWindow"); err != nil {
				t.Log("whether the server had room for all is not known: ", err)
			} else if n > 0 {
				t.Errorf("the server had no room for %d bundles", n)
			}
			pair.Abort()
		})
	}
}

// What the program has passed up is waited for, however long it takes to its socket: there is no
// switch before.
func TestSwitchWaitsForSockets(t *testing.T) {
	for _, pl := range places()[:2] {
		t.Run(pl.name, func(t *testing.T) {
			c := newChain(t)
			testnet.Need(t, "peers")
			b := pl.open(t, c)
			p := openPlane(t, c, wire.Config{}) // last: without a pair it soon ends
			pair := consider(t, c, p, b, func() {})
			held, err := c.B.Hold(t.Context(), testnet.LinkBA, "meta length > 500")
			if err != nil {
				t.Fatal(err)
			}
			defer held.Close()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			message := make([]byte, 1000)
			_, _ = rand.NewChaCha8([32]byte{}).Read(message)
			if _, err := b.client.Write(message); err != nil {
				t.Fatal(err)
			}
			packet, err := held.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			learned(t, pair)
			for range 10 {
				if err := pair.Switch(0, true); err != syscall.EAGAIN {
					t.Fatalf("switched while a segment was under way: %v", err)
				}
			}
			if err := errors.Join(held.Pass(), held.Release(packet)); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(message))
			_ = b.a.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.ReadFull(b.a, got); err != nil || !bytes.Equal(got, message) {
				t.Fatal("the socket has not got it: ", err)
			}
			if _, err := b.b.Write(got); err != nil {
				t.Fatal(err)
			}
			eventually(t, "switched", func() bool {
				err := pair.Switch(0, true)
				if err != nil && err != syscall.EAGAIN {
					t.Fatal(err)
				}
				return err == nil
			})
			settle(t, pair)
			pair.Dissolve()
			_ = b.server.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.ReadFull(b.server, got); err != nil || !bytes.Equal(got, message) {
				t.Error("the server has not got it: ", err)
			}
			carry(t, b.client, b.server, 1<<20)
			carry(t, b.server, b.client, 1<<20)
			pair.Abort()
		})
	}
}

// A peer that owes an acknowledgement is not probed: it speaks by itself, or has not even
// got the last segment of the handshake.
func TestProbe(t *testing.T) {
	c := newChain(t)
	testnet.Need(t, "peers")
	b := places()[0].open(t, c)
	hear := deaf(t, c.C, "")
	defer hear()
	if _, err := b.b.Write(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	p := openPlane(t, c, wire.Config{}) // last: without a pair it soon ends
	before := counter(t, c.B, "TCPWinProbe")
	var pair *wire.Pair
	eventually(t, "attached", func() bool {
		err := c.B.Do(func() error {
			var why wire.Refusal
			var err error
			if pair, why, err = p.Consider(fd(t, b.a), fd(t, b.b), func() {}); why != 0 {
				return fmt.Errorf("refused: %d, %w", why, err)
			}
			return err
		})
		if err != nil && !errors.Is(err, wire.ErrPending) {
			t.Fatal(err)
		}
		return err == nil
	})
	defer pair.Withdraw()
	if n := counter(t, c.B, "TCPWinProbe") - before; n != 1 {
		t.Errorf("%d probes, want one: to the side that owes nothing", n)
	}
}

// A socket that owes an acknowledgement when the pair is switched says it before: later
// its peer may have gone, and would answer with a RST.
func TestNothingIsOwed(t *testing.T) {
	for _, pl := range places()[:2] {
		t.Run(pl.name, func(t *testing.T) {
			c := newChain(t)
			b := pl.open(t, c)
			p := openPlane(t, c, wire.Config{}) // last: without a pair it soon ends
			pair := consider(t, c, p, b, func() {})
			learned(t, pair)

			// As after some exchanges of messages: an acknowledgement waits for an answer to go with.
			if err := syscall.SetsockoptInt(fd(t, b.b), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 0); err != nil {
				t.Fatal(err)
			}
			var message [100]byte
			if _, err := b.server.Write(message[:]); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(b.b, message[:]); err != nil {
				t.Fatal(err)
			}
			if _, err := b.a.Write(message[:]); err != nil {
				t.Fatal(err)
			}
			if err := pair.Switch(0, true); err != nil {
				t.Fatal(err)
			}
			settle(t, pair)
			const longest = 200 * time.Millisecond // that Linux delays one
			late := counter(t, c.B, "DelayedACKs")
			for began := time.Now(); time.Since(began) < longest+50*time.Millisecond; time.Sleep(10 * time.Millisecond) {
				if counter(t, c.B, "DelayedACKs") > late {
					t.Fatalf("an acknowledgement %v after the pair has settled", time.Since(began))
				}
			}
			pair.Dissolve()
			if _, err := io.ReadFull(b.client, message[:]); err != nil {
				t.Fatal(err)
			}
			carry(t, b.client, b.server, 1000)
			carry(t, b.server, b.client, 1000)
			pair.Abort()
		})
	}
}
