package splice_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/spliced-io/spliced/splice"
	"github.com/spliced-io/spliced/splice/conformance"
)

// slowEnd is longer than any of these sessions takes on a busy machine.
const slowEnd = 30 * time.Second

// TestChaos joins connections of every kind by Start and by Forward, some at
// once, and has both peers do what peers do: send in random pieces, pause, close a
// half, reset, go without reading, read slowly. What arrives is a prefix of what was sent, all
// of it where nobody was cut short; the reason fits; nothing is left.
//
// SPLICED_CHAOS is the number of sessions, 200 by default. SPLICED_CHAOS_BUFFER is the
// size of the peers' receive buffers, the kernel's choice by default: what a very
// small one costs, and why, is in docs/engines.md.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long")
	}
	number := func(name string, n int) int {
		v := os.Getenv(name)
		if v == "" {
			return n
		}
		n, err := strconv.Atoi(v)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return n
	}
	sessions, buffer := number("SPLICED_CHAOS", 200), number("SPLICED_CHAOS_BUFFER", 0)
	legs := []conformance.Leg{conformance.TCP4, conformance.TCP6, conformance.Unix, conformance.MPTCP}
	const atOnce = 8
	var mu sync.Mutex
	ends := make(map[splice.Reason]int)
	var slowest time.Duration
	run := func(n int) {
		var wg sync.WaitGroup
		slots := make(chan struct{}, atOnce)
		for i := range n {
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				seed := rand.Uint64()
				r := rand.New(rand.NewPCG(seed, 0))
				c := &chaos{r: r, a: legs[r.IntN(len(legs))], b: legs[r.IntN(len(legs))], forward: i%2 == 1, buffer: buffer}
				if err := c.run(); err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
				mu.Lock()
				defer mu.Unlock()
				ends[c.ends[0]]++
				ends[c.ends[1]]++
				slowest = max(slowest, c.took)
			})
		}
		wg.Wait()
	}
	run(2 * atOnce) // what is made once is made now
	before := conformance.TakeCensus()
	run(sessions)
	before.Restored(t)
	t.Logf("directions by their ends: %v; the slowest session took %v", ends, slowest)
}

// A chaos is one session.
type chaos struct {
	r       *rand.Rand
	a, b    conformance.Leg
	forward bool
	buffer  int // the peers' receive buffer; 0 is the kernel's choice

	max      [2]int64
	fetched  [2]int64
	peers    [2]*chaosPeer
	stopWait time.Duration
	stop     bool

	ends [2]splice.Reason
	took time.Duration
}

func (c *chaos) String() string {
	return fmt.Sprintf("%s-%s forward=%v max=%v prefetched=%v stop=%v; a %v; b %v", c.a, c.b, c.forward, c.max, c.fetched, c.stop, c.peers[0], c.peers[1])
}

// A chaosPeer is what one end does.
type chaosPeer struct {
	conn   net.Conn
	seed   uint64
	salt   byte
	send   int64
	fin    bool // a FIN, else it waits for the end
	reset  bool // goes once all is sent: with a RST,
	quiet  bool // or by a mere close, whatever it has not read
	slow   bool
	got    int64
	gotEnd error
	sent   int64
	bad    error
}

func (p *chaosPeer) String() string {
	if p == nil {
		return "none"
	}
	return fmt.Sprintf("{send %d of %d, fin %v, goes %v, quietly %v, slow %v, got %d, then %v}", p.sent, p.send, p.fin, p.reset, p.quiet, p.slow, p.got, p.gotEnd)
}

func (p *chaosPeer) pause(r *rand.Rand) {
	if r.IntN(8) == 0 {
		time.Sleep(time.Duration(r.IntN(4)) * time.Millisecond)
	}
}

func (p *chaosPeer) talk(from int64) {
	r := rand.New(rand.NewPCG(p.seed, 1))
	p.sent = from
	for p.sent < p.send {
		n := min(1+r.Int64N(1<<(1+r.IntN(18))), p.send-p.sent)
		m, err := p.conn.Write(stream(p.salt, p.sent, n))
		p.sent += int64(m)
		if err != nil {
			return
		}
		p.pause(r)
	}
	switch {
	case p.reset:
		if t, ok := p.conn.(*net.TCPConn); ok && !p.quiet {
			_ = t.SetLinger(0)
		}
		p.conn.Close()
	case p.fin:
		_ = p.conn.(interface{ CloseWrite() error }).CloseWrite()
	}
}

func (p *chaosPeer) listen(salt byte) {
	r := rand.New(rand.NewPCG(p.seed, 2))
	buf := make([]byte, 256<<10)
	for {
		n, err := p.conn.Read(buf[:1+r.IntN(len(buf))])
		if want := stream(salt, p.got, int64(n)); string(want) != string(buf[:n]) {
			p.bad = fmt.Errorf("wrong bytes between %d and %d", p.got, p.got+int64(n))
			p.conn.Close()
			return
		}
		p.got += int64(n)
		if err != nil {
			p.gotEnd = err
			return
		}
		if p.slow {
			p.pause(r)
		}
	}
}

func (c *chaos) peer(salt byte) *chaosPeer {
	p := &chaosPeer{seed: c.r.Uint64(), salt: salt, send: c.r.Int64N(1 << (1 + c.r.IntN(21)))}
	p.fin, p.slow = c.r.IntN(10) < 8, c.r.IntN(3) == 0
	p.reset, p.quiet = c.r.IntN(6) == 0, c.r.IntN(2) == 0
	return p
}

// A chaosHandler takes a session that was aborted before it was joined for a
// stopped one.
type chaosHandler struct{ ended chan splice.Result }

func (h chaosHandler) Note(splice.Flow) string                { return "" }
func (h chaosHandler) Sockets(bool)                           {}
func (h chaosHandler) Connected(int, netip.AddrPort, []error) {}
func (h chaosHandler) Failed(err error, _ []error) {
	e := splice.End{Reason: splice.Stopped, Err: err}
	h.ended <- splice.Result{AToB: e, BToA: e}
}

func (h chaosHandler) Ended(r splice.Result) { h.ended <- r }

func (c *chaos) run() (err error) {
	c.peers = [2]*chaosPeer{c.peer(1), c.peer(101)}
	for i, leg := range []conformance.Leg{c.a, c.b} {
		if leg == conformance.MPTCP {
			// Linux answers what comes after the close with silence, not with a RST,
			// and forgets the connection a minute later: no relay can tell that from
			// a slow reader (docs/relay.md).
			c.peers[i].quiet = false
		}
	}
	for i := range c.max {
		if c.r.IntN(5) == 0 {
			c.max[i] = 1 + c.r.Int64N(1<<(1+c.r.IntN(20)))
		}
	}
	if c.r.IntN(6) == 0 {
		c.stop, c.stopWait = true, time.Duration(c.r.IntN(20))*time.Millisecond
	}
	engine := []splice.Engine{splice.EngineAuto, splice.EngineCopy, splice.EngineSplice}[c.r.IntN(3)]
	opts := []splice.Option{splice.Use(engine), splice.MaxBytes(c.max[0], c.max[1])}
	var session *splice.Session
	ended := make(chan splice.Result, 1)
	if c.forward {
		closeAll, s, e, err := c.forwarded(opts)
		if err != nil {
			return fmt.Errorf("%v: %w", c, err)
		}
		defer closeAll()
		session, ended = s, e
	} else {
		client, relayA, err := c.a.Dial()
		if err != nil {
			return err
		}
		relayB, server, err := c.b.Dial()
		if err != nil {
			return err
		}
		c.peers[0].conn, c.peers[1].conn = client, server
		var first [2][]byte
		for i := range first {
			if c.r.IntN(4) == 0 {
				c.fetched[i] = min(c.peers[i].send, c.r.Int64N(100_000))
				first[i] = stream(c.peers[i].salt, 0, c.fetched[i])
			}
		}
		opts = append(opts, splice.Own(), splice.Prefetched(first[0], first[1]), splice.OnEnd(func(r splice.Result) { ended <- r }))
		if session, err = splice.Start(relayA, relayB, opts...); err != nil {
			relayA.Close()
			relayB.Close()
			client.Close()
			server.Close()
			return err
		}
	}
	if c.buffer > 0 {
		for _, p := range c.peers {
			_ = p.conn.(interface{ SetReadBuffer(int) error }).SetReadBuffer(c.buffer)
		}
	}
	deadline := time.Now().Add(4 * slowEnd)
	var wg sync.WaitGroup
	for i, p := range c.peers {
		_ = p.conn.SetDeadline(deadline)
		wg.Go(func() { p.talk(c.fetched[i]) })
		wg.Go(func() { p.listen(c.peers[1-i].salt) })
	}
	// Who sends no FIN is cut, sooner or later.
	cut := !(c.peers[0].fin || c.peers[0].reset) || !(c.peers[1].fin || c.peers[1].reset)
	if cut && !c.stop {
		c.stop, c.stopWait = true, 300*time.Millisecond
	}
	if c.stop {
		wg.Go(func() {
			time.Sleep(c.stopWait)
			session.Abort()
		})
	}
	begun := time.Now()
	defer func() {
		c.peers[0].conn.Close()
		c.peers[1].conn.Close()
	}()
	// A peer that has the end of what it receives goes, as programs do.
	var r splice.Result
	late := time.NewTimer(2 * slowEnd)
	defer late.Stop()
	select {
	case r = <-ended:
	case <-late.C:
		session.Abort()
		r = <-ended
		wg.Wait()
		return fmt.Errorf("%v: the session had not ended after %v: %+v", c, time.Since(begun), r)
	}
	took := time.Since(begun)
	c.took, c.ends = took, [2]splice.Reason{r.AToB.Reason, r.BToA.Reason}
	wg.Wait()
	if took > slowEnd {
		return fmt.Errorf("%v: took %v: %+v", c, took, r)
	}
	return c.check(r)
}

// forwarded makes the session through Forward.
func (c *chaos) forwarded(opts []splice.Option) (closeAll func(), s *splice.Session, ended chan splice.Result, err error) {
	var undo []func()
	closeAll = func() {
		for i := len(undo) - 1; i >= 0; i-- {
			undo[i]()
		}
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	if c.b == conformance.MPTCP {
		c.b = conformance.TCP4 // the event loops dial plain TCP
	}
	dir, err := os.MkdirTemp("", "chaos")
	if err != nil {
		return nil, nil, nil, err
	}
	undo = append(undo, func() { os.RemoveAll(dir) })
	front, err := listenLeg(c.a, dir+"/a")
	if err != nil {
		return nil, nil, nil, err
	}
	back, err := listenLeg(c.b, dir+"/b")
	if err != nil {
		front.Close()
		return nil, nil, nil, err
	}
	defer back.Close()
	plan, err := splice.NewPlan(slowEnd, opts...)
	if err != nil {
		front.Close()
		return nil, nil, nil, err
	}
	target, err := targetOf(back.Addr())
	if err != nil {
		front.Close()
		return nil, nil, nil, err
	}
	h := chaosHandler{make(chan splice.Result, 1)}
	sessions := make(chan *splice.Session, 1)
	f, err := splice.Forward(front, splice.Forwarding{
		Accepted: func(s *splice.Session, _ netip.AddrPort) splice.Way {
			sessions <- s
			return splice.Way{Plan: plan, Targets: []splice.Target{target}, Handler: h}
		},
		Held: func(error) {},
	})
	if err != nil {
		front.Close()
		return nil, nil, nil, err
	}
	undo = append(undo, func() { f.Close(); f.Wait() })
	d := net.Dialer{Timeout: slowEnd}
	d.SetMultipathTCP(c.a == conformance.MPTCP)
	client, err := d.DialContext(context.Background(), front.Addr().Network(), front.Addr().String())
	if err != nil {
		return nil, nil, nil, err
	}
	server, err := back.Accept()
	if err != nil {
		client.Close()
		return nil, nil, nil, err
	}
	c.peers[0].conn, c.peers[1].conn = client, server
	return closeAll, <-sessions, h.ended, nil
}

func listenLeg(l conformance.Leg, path string) (net.Listener, error) {
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(l == conformance.MPTCP)
	switch l {
	case conformance.Unix:
		return lc.Listen(context.Background(), "unix", path)
	case conformance.TCP6:
		return lc.Listen(context.Background(), "tcp6", "[::1]:0")
	default:
		return lc.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	}
}

// check compares with the model.
func (c *chaos) check(r splice.Result) error {
	ends := [2]splice.End{r.AToB, r.BToA}
	calm := !c.stop && !c.peers[0].reset && !c.peers[1].reset && c.max == [2]int64{}
	for i, e := range ends {
		from, to := c.peers[i], c.peers[1-i]
		fail := func(what string) error { return fmt.Errorf("%v: way %d: %s: %+v", c, i, what, e) }
		switch {
		case to.bad != nil:
			return fail(to.bad.Error())
		case to.got > e.Bytes:
			return fail("more received than counted")
		case e.Bytes > from.sent:
			return fail("more counted than sent")
		case e.Reason == splice.Running:
			return fail("still running")
		case e.Reason == splice.Failed:
			return fail("failed")
		case e.Reason == splice.Max && e.Bytes != c.max[i]:
			return fail("not its limit")
		case c.max[i] > 0 && e.Bytes > c.max[i]:
			return fail("beyond its limit")
		case e.Reason == splice.EOF && e.Bytes != from.sent:
			return fail("EOF before the end")
		case calm && (e.Reason != splice.EOF || to.got != from.send):
			return fail("nobody was cut short")
		case e.Reason == splice.Stopped && !c.stop:
			return fail("nobody stopped it")
		case (e.Reason == splice.EOF || e.Reason == splice.Max) && !to.reset && !c.stop && !from.reset && to.got != e.Bytes:
			return fail("a clean end, but not all received")
		}
	}
	return nil
}

func targetOf(a net.Addr) (splice.Target, error) {
	if t, ok := a.(*net.TCPAddr); ok {
		return splice.NewTarget(t.AddrPort())
	}
	return splice.NewUnixTarget(a.String())
}
