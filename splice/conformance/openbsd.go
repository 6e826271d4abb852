//go:build linux

package conformance

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"

	"github.com/spliced-io/spliced/splice"
)

// openBSD has the scenarios of regress/sys/kern/sosplice that are about
// stream sockets, by their names there. Where SO_SPLICE answers otherwise than
// a relay of two connections does, the promise of this project counts: one
// direction is a whole connection here, a FIN is passed on, and what BSD calls
// EPROTONOSUPPORT and EOPNOTSUPP has its own errno.
func openBSD() []scenario {
	s := []scenario{
		{name: "error/from-spliced-EBUSY", plain: true, run: alreadyJoined},
		{name: "error/unsplice-twice", plain: true, run: unspliceTwice},
		{name: "error/ELOOP", plain: true, run: loopStops},
		{name: "error/tcp-and-unix-mixed", plain: true, run: bsdMixed},
		{name: "tcp/idle-timeout", plain: true, clock: true, run: oneWay(idleAfterTraffic)},
		{name: "tcp/idle-trickle", plain: true, clock: true, run: oneWay(idleRearmed)},
		{name: "tcp/idle-reverse", plain: true, clock: true, run: oneWay(idleReverse)},
		{name: "tcp/max-time", plain: true, clock: true, run: oneWay(maxTime)},
		{name: "tcp/oobinline", plain: true, jam: true, run: eachWay(urgentMiddle)},
		{name: "tcp/oobinline-max", plain: true, jam: true, run: oneWay(urgentAtLimit)},
		{name: "tcp/oobinline-nonblock", plain: true, jam: true, run: eachWay(urgentMany)},
		{name: "tcp/relay-close-in", plain: true, run: relayCloseIn},
		{name: "tcp/relay-read-eof", plain: true, run: eachWay(relayReadEOF)},
		{name: "tcp/relay-read-forked", plain: true, run: eachWay(relayReadForked), skip: func(p *place) bool { return p.own }},
		{name: "tcp/relay-write-forked", plain: true, run: eachWay(relayWriteForked), skip: func(p *place) bool { return p.own }},
		{name: "tcp/reset", plain: true, run: oneWay(resetAtRest)},
		{name: "tcp/reset-eof", plain: true, run: oneWay(resetAfterOwnEOF)},
		{name: "tcp/reset-sleep-server", plain: true, jam: true, run: oneWay(resetBehindStalled)},
		{name: "tcp/server-abort", plain: true, run: oneWay(resetByDrain)},
		{name: "tcp/server-exit", plain: true, run: eachWay(serverExit)},
		{name: "tcp/unsplice-forked", run: eachWay(unspliceForked)},
		{name: "loop/chain", plain: true, run: chain},
		{name: "loop/bcast", plain: true, run: bcast, skip: func(p *place) bool { return p.own }},
		{name: "scapy/payload-behind-handshake", plain: true, run: eachWay(payloadAtOnce)},
	}
	for _, x := range transfers() {
		s = append(s, scenario{name: "tcp/" + x.name, plain: true, run: eachWay(x.run)})
	}
	return s
}

// A transfer is a stream from client to server through the relay.
type transfer struct {
	name   string
	length int64
	chunk  int64 // of one write; 0 is all at once
	limit  int64 // MaxBytes; 0 is none
	sleeps string
	// Buffers of the relay's sockets, in bytes.
	receive, send int
}

func transfers() []transfer {
	all := []transfer{
		{name: "default", length: 251},
		{name: "short", length: 3},
		{name: "long", length: 1 << 17},
		{name: "null"},
		{name: "nonblock", length: 1 << 17, chunk: 1000},
		{name: "smallbuf", length: 1 << 16, receive: 8192, send: 8192},
		{name: "smallbuf-sleep-server", length: 1 << 16, receive: 8192, send: 8192, sleeps: "server"},
		{name: "smallrcv-sleep-server", length: 1 << 17, receive: 8192, sleeps: "server"},
		{name: "smallsnd-sleep-server", length: 1 << 17, send: 8192, sleeps: "server"},
		{name: "max", length: 1 << 17, limit: 32117},
		{name: "max-nonblock", length: 1 << 17, limit: 32117, chunk: 1000},
		{name: "null-max", limit: 32117},
	}
	for _, who := range []string{"client", "relay", "server"} {
		all = append(
			all,
			transfer{name: "sleep-" + who, length: 251, sleeps: who},
			transfer{name: "long-sleep-" + who, length: 1 << 17, sleeps: who},
			transfer{name: "max-sleep-" + who, length: 1 << 17, limit: 32117, sleeps: who},
			transfer{name: "max-sleep-" + who + "-short", length: 251, limit: 32117, sleeps: who},
			transfer{name: "null-max-sleep-" + who, limit: 32117, sleeps: who},
			transfer{name: "maxcopy-sleep-" + who, length: 251, limit: 197, sleeps: who},
		)
	}
	return all
}

// run carries the stream. Who sleeps, sleeps until everything else has come to
// rest: half of the bytes are on their way then.
func (x transfer) run(t *testing.T, w way) {
	for _, c := range []net.Conn{w.in(), w.out()} {
		if err := setBuffers(c, x.receive, x.send); err != nil {
			t.Fatal(err)
		}
	}
	half, cross := x.length/2, x.length
	opts := []splice.Option{}
	if x.limit > 0 {
		opts = append(opts, w.max(x.limit))
		cross = min(cross, x.limit)
	}
	chunk := x.chunk
	if chunk == 0 {
		chunk = max(x.length, 1)
	}
	var pump *pump
	switch x.sleeps {
	case "client":
		w.Start(opts...)
		w.sendChunks(0, half, chunk)
		w.carried(min(half, cross))
		pump = w.pump(half, x.length-half, chunk)
	case "relay":
		pump = w.pump(0, x.length, chunk)
		settled(t, "the relay's queue", func() int64 { n, _ := unread(w.in()); return n })
		w.Start(opts...)
	case "server":
		w.Start(opts...)
		pump = w.pump(0, x.length, chunk)
		settled(t, "the count", func() int64 { return w.stats().Bytes })
	default:
		w.Start(opts...)
		pump = w.pump(0, x.length, chunk)
	}
	w.receive(0, cross)
	if x.limit == 0 || x.length < x.limit {
		pump.wait()
		w.finish()
		w.receiveEOF()
		w.back().finish()
		res := w.Wait()
		want(t, "this way", w.end(res).Reason, "eof")
		if have := w.end(res).Bytes; have != x.length {
			t.Errorf("%d bytes, want %d", have, x.length)
		}
		return
	}
	// max: EFBIG there. Then user space copies the rest by itself.
	w.reached(cross)
	res := w.Stop()
	rest := w.bytes(cross, x.length-cross)
	w.account(res, cross, x.length)
	pump.wait()
	if _, err := w.out().Write(rest); err != nil {
		t.Fatalf("copy the rest: %v", err)
	}
	w.receive(cross, x.length-cross)
	w.usable()
}

func unspliceTwice(t *testing.T, p *place) {
	l := p.link(t)
	l.Start()
	first := l.Stop()
	second, err := l.Session.Stop(t.Context())
	if err != nil || second.AToB.Reason != first.AToB.Reason || !second.Ended.Equal(first.Ended) {
		t.Errorf("the second Stop: %+v, %v; the first: %+v", second, err, first)
	}
	l.usable()
}

// Bytes that go round for ever can be stopped, and don't starve others.
func loopStops(t *testing.T, p *place) {
	l, other := p.link(t), p.link(t)
	// Two sessions in a ring: x0 ═ y0 ── y1 ═ x1 ── x0.
	ring, err := splice.Start(l.A, l.B, l.options()...)
	if err != nil {
		t.Fatal(err)
	}
	l.ring = true
	l.Start(splice.Prefetched(l.forward().bytes(0, 1000), l.backward().bytes(0, 100_000)))
	defer func() {
		_, _ = ring.Stop(t.Context())
		if p.own {
			if a, b, err := ring.Conns(); err == nil {
				a.Close()
				b.Close()
			}
		}
	}()
	eventually(t, "many rounds", func() bool {
		s := l.Session.Stats()
		return s.AToB.Bytes > 100_000 && s.BToA.Bytes > 1_000_000
	})
	other.Start()
	other.forward().pingPong(0, 20, 100)
	l.StopNow()
	if _, err := ring.Stop(t.Context()); err != nil {
		t.Logf("stop the ring: %v", err)
	}
	select {
	case <-ring.Done():
	default:
		t.Error("the ring goes on")
	}
}

// inet-unix- and unix-EPROTONOSUPPORT are no errors here: the kinds mix.
func bsdMixed(t *testing.T, p *place) {
	n := Network{p.network.A, Unix}
	if n.A == Unix {
		n.B = TCP4
	}
	l := newPlace(p.engine, n, p.own).link(t)
	l.Start()
	l.forward().carry(0, 1<<20, 10_000)
	l.backward().carry(0, 1<<20, 10_000)
}

// Idle in one way alone is not idle: the session is a connection, not a
// direction.
func idleReverse(t *testing.T, w way) {
	b := w.back()
	res := b.rearmed(splice.IdleTimeout, func(b way) { b.back().carry(0, 100, 100) })
	want(t, "the way that was idle", w.end(res).Reason, "idle")
}

func maxTime(t *testing.T, w way) {
	w.Start(w.max(32117), splice.IdleTimeout(4*short))
	pump := w.pump(0, 1<<17, 1<<17)
	w.receive(0, 32117)
	w.reached(32117)
	res := w.Wait()
	want(t, "this way", w.end(res).Reason, "max")
	want(t, "the way back", w.back().end(res).Reason, "idle")
	if !w.place.own {
		w.account(res, 32117, 1<<17)
		pump.wait()
	}
}

// The relay's program closes its connection while it is joined. A session has
// the socket open for itself: bytes go on, and nothing breaks.
func relayCloseIn(t *testing.T, p *place) {
	l := p.link(t)
	a, b := l.relayA, l.relayB
	l.Start()
	l.forward().carry(0, 1000, 1000)
	a.Close()
	b.Close()
	l.forward().carry(1000, 100_000, 1000)
	l.backward().carry(0, 100_000, 1000)
	l.forward().finish()
	l.forward().receiveEOF()
	l.backward().finish()
	l.backward().receiveEOF()
	res := l.Wait()
	want(t, "a to b", res.AToB.Reason, "eof")
	want(t, "b to a", res.BToA.Reason, "eof")
}

func relayReadEOF(t *testing.T, w way) {
	const n = 9216
	if err := setBuffers(w.dst, 4096, 0); err != nil {
		t.Fatal(err)
	}
	if err := setBuffers(w.out(), 0, 4096); err != nil {
		t.Fatal(err)
	}
	w.send(0, n)
	w.finish()
	w.arrived(n)
	w.Start()
	settled(t, "the count", func() int64 { return w.stats().Bytes })
	w.receive(0, n)
	w.receiveEOF()
}

// The caller breaks the rule and reads too: the bytes go to one of the two in
// no defined order, but nothing crashes and the session ends.
func relayReadForked(t *testing.T, w way) {
	w.Start()
	var wg sync.WaitGroup
	in := w.in()
	wg.Go(func() { _, _ = io.Copy(io.Discard, in) })
	wg.Go(func() { _, _ = io.Copy(io.Discard, w.dst) })
	w.sendChunks(0, 8<<20, 10_000)
	w.finish()
	w.back().finish()
	// Whoever of the two reads the FIN, the other reads it again.
	w.Wait()
	in.Close()
	w.out().Close()
	wg.Wait()
}

func relayWriteForked(t *testing.T, w way) {
	w.Start()
	var wg sync.WaitGroup
	out := w.out()
	var both int64
	wg.Go(func() { both, _ = io.Copy(io.Discard, w.dst) })
	var own int64
	wg.Go(func() {
		for range 1000 {
			n, err := out.Write([]byte("in between"))
			own += int64(n)
			if err != nil {
				return // shut down already
			}
		}
	})
	w.sendChunks(0, 8<<20, 10_000)
	w.finish()
	w.back().finish()
	res := w.Wait()
	wg.Wait()
	if have := w.end(res).Bytes; have != 8<<20 || both != have+own {
		t.Errorf("%d bytes carried, %d received; %d written by the caller", have, both, own)
	}
}

// The server takes part of the stream and exits.
func serverExit(t *testing.T, w way) {
	w.Start()
	pump := w.pump(0, far, 64<<10)
	w.receive(0, 1<<20)
	if err := w.dst.Close(); err != nil {
		t.Fatal(err)
	}
	pump.wait()
	if pump.err == nil {
		t.Error("the client could send all of it")
	}
	res := w.Wait()
	want(t, "this way", w.end(res).Reason, "reset-by-drain")
}

// Unsplice while the client writes: what is left is readable on the source.
func unspliceForked(t *testing.T, w way) {
	const n = 4 << 20
	w.Start()
	pump := w.pump(0, n, 9000)
	sink := w.sink(0)
	sink.beyond(n / 8)
	res := w.Stop()
	sink.right()
	w.account(res, sink.halt(), n)
	pump.wait()
	w.usable()
}

// chain joins several relays one after the other.
func chain(t *testing.T, p *place) {
	const n = 4 << 20
	var links []*Link
	for range 4 {
		links = append(links, p.link(t))
	}
	// The server's end of each is joined with the client's end of the next.
	for i, l := range links {
		l.Start()
		if i == 0 {
			continue
		}
		s, err := splice.Start(links[i-1].B, l.A, l.options()...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { <-s.Done() })
	}
	f, b := links[0].forward(), links[0].backward()
	f.dst, b.src = links[3].B, links[3].B
	f.carry(0, n, 10_000)
	b.carry(0, n, 100_000)
	f.finish()
	f.receiveEOF()
	b.carry(n, n, 100_000)
	b.finish()
	b.receiveEOF()
	for _, l := range links {
		res := l.Wait()
		if res.AToB.Bytes != n || res.BToA.Bytes != 2*n {
			t.Errorf("want %d and %d bytes, have %+v", n, 2*n, res)
		}
	}
}

// One source for many drains is not a relay of two connections.
func bcast(t *testing.T, p *place) {
	l := p.link(t)
	l.Start()
	for range 3 {
		other := p.link(t)
		l.refused(l.relayA, other.relayB, syscall.EBUSY)
		other.usable()
	}
	l.forward().carry(0, 1000, 1000)
}

// The first bytes come with the end of the handshake, before anybody looks.
func payloadAtOnce(t *testing.T, w way) {
	for range 20 {
		w := w.place.link(t).forward().like(w)
		w.send(0, 100)
		w.finish()
		w.Start()
		w.receive(0, 100)
		w.receiveEOF()
		if _, err := w.src.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) && !errors.Is(err, net.ErrClosed) {
			t.Errorf("write behind the shutdown: %v", err)
		}
		w.Release()
	}
}
