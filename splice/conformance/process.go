//go:build linux

package conformance

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"
)

// A process is a relay in a process of its own, so that its descriptors,
// processor time and memory can be told from those of the test.
type process struct {
	t       *testing.T
	place   *place
	first   Census // before anything was joined
	target  net.Listener
	address string
	orders  *json.Encoder
	answers *json.Decoder
}

// start starts this very program again; helper is the name of its test that
// calls Serve.
func start(t *testing.T, e Engine, own bool, helper string, limit int64) *process {
	t.Helper()
	p := &process{t: t, place: newPlace(e, Network{TCP4, TCP4}, own)}
	var err error
	if p.target, err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.target.Close() })
	j, err := json.Marshal(job{Engine: e.Name, Own: own, Target: p.target.Addr().String(), Max: limit})
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^"+helper+"$")
	cmd.Env = append(os.Environ(), jobVariable+"="+string(j))
	errs := new(bytes.Buffer)
	cmd.Stderr = errs
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close() // it ends by that
		kill := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		rest := new(bytes.Buffer)
		_, _ = rest.ReadFrom(stdout)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the relay process: %v\n%s%s", err, rest, errs)
		}
	})
	p.orders, p.answers = json.NewEncoder(stdin), json.NewDecoder(stdout)
	var hello report
	if err := p.answers.Decode(&hello); err != nil {
		t.Fatalf("the relay process doesn't start: %v", err)
	}
	p.address = hello.Address
	p.first = p.ask("report").Census
	return p
}

// ask gives an order and returns the answer.
func (p *process) ask(do string) report {
	p.t.Helper()
	if err := p.orders.Encode(order{do}); err != nil {
		p.t.Fatalf("%s: %v", do, err)
	}
	var r report
	if err := p.answers.Decode(&r); err != nil {
		p.t.Fatalf("%s: %v", do, err)
	}
	return r
}

// link connects through the process. What the suite's links know of their
// session, these don't.
func (p *process) link() way {
	p.t.Helper()
	l := &Link{t: p.t, place: p.place}
	p.t.Cleanup(l.Release)
	var err error
	if l.A, err = net.Dial("tcp4", p.address); err != nil {
		p.t.Fatal(err)
	}
	if l.B, err = p.target.Accept(); err != nil {
		p.t.Fatal(err)
	}
	for _, c := range []net.Conn{l.A, l.B} {
		if err := c.SetDeadline(time.Now().Add(lasting)); err != nil {
			p.t.Fatal(err)
		}
	}
	return l.forward()
}

// RunProcess checks what needs a process of its own: what idle pairs cost,
// that nothing spins, and a shortage of descriptors. helper is the name of a
// test of the same binary that calls Serve.
func RunProcess(t *testing.T, e Engine, helper string) {
	t.Helper()
	var all []func()
	run := func(name string, f func(t *testing.T)) {
		all = append(all, func() { t.Run(name, f) })
	}
	for _, own := range []bool{true, false} {
		name := "borrowed"
		if own {
			name = "own"
		}
		run(name+"/idle-pairs", func(t *testing.T) { idlePairs(t, start(t, e, own, helper, 0)) })
		run(name+"/shortage-of-descriptors", func(t *testing.T) { shortage(t, start(t, e, own, helper, 0)) })
		for _, s := range stills() {
			run(name+"/no-spin/"+s.name, func(t *testing.T) {
				p := start(t, e, own, helper, s.limit)
				s.reach(p)
				p.still()
			})
		}
	}
	concurrently(all, clockAtOnce)
}

// idlePairs: an idle pair has two descriptors, no pipe and no goroutine.
func idlePairs(t *testing.T, p *process) {
	const pairs = 1000
	w := p.link() // whatever is made once is made now
	w.carry(0, 8<<20, 1<<20)
	w.back().carry(0, 8<<20, 1<<20)
	before := p.ask("report").Census
	var ways []way
	for range pairs {
		w := p.link()
		ways = append(ways, w)
		w.carry(0, 10, 10)
		w.back().carry(0, 10, 10)
	}
	for _, w := range ways[:5] {
		w.carry(10, 8<<20, 1<<20) // these had a pipe
	}
	sockets := 2 * pairs
	if !p.place.own {
		sockets *= 2 // the caller's, and the session's
	}
	const constant = 16 // event loops, and what the runtime likes to have
	var r report
	if !within(patience, func() bool {
		r = p.ask("report")
		return r.Running == pairs+1 && r.Census.Pipes == p.first.Pipes && r.Census.Sockets == before.Sockets+sockets &&
			r.Census.Descriptors <= before.Descriptors+sockets+constant &&
			r.Census.Goroutines <= before.Goroutines+constant
	}) {
		t.Errorf("%d pairs have %+v; one pair had %+v, none %+v", r.Running, r.Census, before, p.first)
	}
	for _, w := range ways {
		w.Release()
	}
	if !within(patience, func() bool {
		r = p.ask("report")
		return r.Running == 1 && r.Ended == pairs
	}) {
		t.Errorf("%d sessions still run, %d have ended", r.Running, r.Ended)
	}
	if p.place.own && r.Census.Sockets > before.Sockets {
		t.Errorf("%d sockets are left, %d were before", r.Census.Sockets, before.Sockets)
	}
}

// shortage: without a descriptor left, what runs goes on, at worst by
// copying, and what can't be joined is an error.
func shortage(t *testing.T, p *process) {
	const n = 16 << 20
	w := p.link()
	w.pingPong(0, 10, 10)
	p.ask("hold")
	held := p.link()
	eventually(t, "the connection in waiting", func() bool { return p.ask("report").Running == 1 })
	if r := p.ask("exhaust"); r.Error != "" {
		t.Fatal(r.Error)
	}
	w.carry(100, n, 1<<20)
	var s figures
	eventually(t, "every byte counted", func() bool {
		s = p.ask("report").First
		return s.Bytes == n+100
	})
	if p.place.engine.Name != "copy" {
		// A machine too busy for a stream has not asked for a pipe.
		if s.Engine != "copy" || s.Why != "pipe-budget" && s.Why != "small-messages" || s.Spliced != 0 {
			t.Errorf("without a descriptor for a pipe: engine %v because of %v, %d bytes spliced", s.Engine, s.Why, s.Spliced)
		}
	}
	if r := p.ask("join"); !r.NoFiles {
		t.Errorf("join without a descriptor left: error %q", r.Error)
	}
	p.still()
	p.ask("release")
	if r := p.ask("join"); r.Error != "" {
		t.Errorf("join after the shortage: %v", r.Error)
	}
	held.carry(0, n, 1<<20)
	w.carry(n+100, n, 1<<20)
	w.carry(2*n+100, n, 1<<20)
	s = p.ask("report").First
	if f := p.place.engine.Stream; f != nil && p.place.engine.Name != "copy" && s.Spliced == 0 {
		t.Errorf("no pipe is taken again after the shortage: %+v", s)
	}
}

// A still is a state in which a relay has nothing to do, and some relay had a
// busy loop.
type still struct {
	name  string
	limit int64
	reach func(p *process)
}

func stills() []still {
	full := func(w way) int64 {
		sent := w.pump(0, far, 256<<10).blocked()
		return sent
	}
	return []still{
		{name: "idle", reach: func(p *process) { p.link().pingPong(0, 1, 10) }},
		{name: "half-closed-by-client", reach: func(p *process) {
			w := p.link()
			w.carry(0, 1000, 1000)
			w.finish()
			w.receiveEOF()
		}},
		{name: "half-closed-by-server", reach: func(p *process) {
			w := p.link().back()
			w.carry(0, 1000, 1000)
			w.finish()
			w.receiveEOF()
		}},
		{name: "half-closed-after-a-stream", reach: func(p *process) {
			w := p.link()
			w.carry(0, 16<<20, 1<<20)
			w.finish()
			w.receiveEOF()
		}},
		{name: "receiver-stalled", reach: func(p *process) { full(p.link()) }},
		{name: "receiver-stalled-and-source-at-its-end", reach: func(p *process) {
			w := p.link()
			full(w)
			w.finish()
		}},
		{name: "receiver-stalled-and-at-its-end", reach: func(p *process) {
			w := p.link()
			full(w)
			w.back().finish()
			w.back().receiveEOF()
		}},
		{name: "both-stalled", reach: func(p *process) {
			w := p.link()
			full(w)
			full(w.back())
		}},
		{name: "limit-reached-and-more-to-read", limit: 1000, reach: func(p *process) {
			w := p.link()
			w.send(0, 20_000)
			w.receive(0, 1000)
		}},
		{name: "limit-reached-and-eof", limit: 1000, reach: func(p *process) {
			w := p.link()
			w.send(0, 20_000)
			w.finish()
			w.receive(0, 1000)
		}},
		{name: "urgent-data", reach: func(p *process) {
			w := p.link()
			w.carry(0, 8<<20, 1<<20)
			w.sendUrgent(8<<20, 1)
			w.receive(8<<20, 1)
		}},
	}
}

// still checks that the process does nothing. A spin takes all of a processor;
// the runtime's own business, a small part.
func (p *process) still() {
	p.t.Helper()
	const window = 300 * time.Millisecond
	const mostSwitches = 150
	var cpu time.Duration
	var switches int64
	for range 5 { // a moment may fall onto a garbage collection
		first := p.ask("report")
		<-time.After(window)
		last := p.ask("report")
		cpu, switches = last.CPU-first.CPU, last.Switches-first.Switches
		if cpu < window/10 && switches < mostSwitches {
			return
		}
	}
	p.t.Errorf("in %v of rest the relay took %v of a processor and woke up %d times", window, cpu, switches)
}
