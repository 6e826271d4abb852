//go:build linux

package conformance

import (
	"errors"
	"fmt"
	"sync"
	"testing"
)

// A place is where a scenario runs: an engine, a kind of connections, and
// whose they are.
type place struct {
	engine     Engine
	network    Network
	own        bool
	narrow     bool // the kernel's buffers are small and don't grow
	aToB, bToA pattern
}

func newPlace(e Engine, n Network, own bool) *place {
	return &place{engine: e, network: n, own: own, aToB: newPattern(0), bToA: newPattern(period / 2)}
}

func (p *place) String() string {
	if p.own {
		return p.network.String() + "/own"
	}
	return p.network.String() + "/borrowed"
}

// A scenario is one case of a promise.
type scenario struct {
	name string
	run  func(t *testing.T, p *place)

	clock bool // waits for a timeout, not for the machine
	jam   bool // fills every buffer: these are made small, which is quicker
	plain bool // not for MPTCP and not for mixed pairs
	skip  func(p *place) bool
}

// A family is a promise, or a suite of others, with its scenarios.
type family struct {
	name      string
	scenarios []scenario
}

// How many scenarios run at once: those that are busy, and those that mostly
// wait for a timeout. A machine with more CPUs runs no more of them, so that
// the kernel's memory for sockets suffices.
const (
	busyAtOnce  = 12
	clockAtOnce = 12
)

// Run drives every promise over every kind of connection.
func Run(t *testing.T, engines ...Engine) {
	t.Helper()
	// What an engine keeps for good, it has from here on.
	warm(t, engines)
	before := census()
	var busy, clocks []func()
	for _, e := range engines {
		b, c := cases(t, e)
		busy, clocks = append(busy, b...), append(clocks, c...)
	}
	var wg sync.WaitGroup
	wg.Go(func() { concurrently(clocks, clockAtOnce) })
	wg.Go(func() { concurrently(busy, busyAtOnce) })
	wg.Wait()
	t.Run("nothing-left", func(t *testing.T) { before.restored(t) })
}

// cases returns all scenarios of an engine, as subtests of t.
func cases(t *testing.T, e Engine) (busy, clocks []func()) {
	networks := []Network{{TCP4, TCP4}, {Unix, Unix}, {TCP6, TCP6}, {MPTCP, MPTCP}, {TCP4, Unix}, {Unix, TCP6}}
	if raceDetector {
		networks = networks[:2] // the same code runs on the others
	}
	var places []*place
	for _, n := range networks {
		for _, own := range []bool{false, true} {
			places = append(places, newPlace(e, n, own))
		}
	}
	for _, p := range places {
		if err := p.available(); err != nil {
			t.Run(e.Name+"/"+p.String(), func(t *testing.T) { t.Skip(err) })
			continue
		}
		for _, f := range families() {
			if e.Handed != nil && e.refused(p) != "" && f.name != "fast-path" {
				continue // another engine runs these anyway; that it is the one is seen there
			}
			for _, s := range f.scenarios {
				if s.plain && p.network.special() || s.skip != nil && s.skip(p) {
					continue
				}
				here := *p
				here.narrow = s.jam
				here.engine.early = e.early && !s.clock // the clock runs from the start on
				p := &here
				run := func() {
					t.Run(fmt.Sprintf("%s/%v/%s/%s", e.Name, p, f.name, s.name), func(t *testing.T) { s.run(t, p) })
				}
				if s.clock {
					clocks = append(clocks, run)
				} else {
					busy = append(busy, run)
				}
			}
		}
	}
	return busy, clocks
}

func families() []family {
	return []family{
		{"set-up", setUp()},
		{"queued", queued()},
		{"slow-receiver", slowReceiver()},
		{"fin", fin()},
		{"reset", reset()},
		{"max-bytes", maxBytes()},
		{"timeouts", timeouts()},
		{"stop", stop()},
		{"urgent", urgent()},
		{"counters", counters()},
		{"fast-path", fastPath()},
		{"fault", fault()},
		{"openbsd", openBSD()},
		{"freebsd", freeBSD()},
		{"go", goSplice()},
		{"haproxy", haproxy()},
		{"sozu", sozu()},
	}
}

// special says whether n is one of those that only the main cases run on.
func (n Network) special() bool { return n.A != n.B || n.A == MPTCP }

func (p *place) available() error {
	x, y, err := p.network.A.Dial()
	if errors.Is(err, errNoMPTCP) {
		return err
	}
	if err == nil {
		x.Close()
		y.Close()
	}
	return nil
}

// warm has the engines make whatever they make once.
func warm(t *testing.T, engines []Engine) {
	t.Run("warm-up", func(t *testing.T) {
		for _, e := range engines {
			for range 8 {
				l := NewLink(t, e, Network{TCP4, TCP4}, true)
				l.Start()
				l.forward().carry(0, 1<<20, 64<<10)
			}
		}
	})
}

// eachWay runs f from A to B and from B to A, each on a link of its own.
func eachWay(f func(t *testing.T, w way)) func(*testing.T, *place) {
	return func(t *testing.T, p *place) {
		t.Run("a-to-b", func(t *testing.T) { f(t, p.link(t).forward()) })
		t.Run("b-to-a", func(t *testing.T) { f(t, p.link(t).backward()) })
	}
}

// oneWay runs f from A to B.
func oneWay(f func(t *testing.T, w way)) func(*testing.T, *place) {
	return func(t *testing.T, p *place) { f(t, p.link(t).forward()) }
}

// concurrently calls all functions, at most n at a time.
func concurrently(fs []func(), n int) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, n)
	for _, f := range fs {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			f()
		})
	}
	wg.Wait()
}

// want checks a reason.
func want(t TB, what string, have fmt.Stringer, reasons ...string) {
	t.Helper()
	for _, r := range reasons {
		if have.String() == r {
			return
		}
	}
	t.Errorf("%s ended by %v, want %v", what, have, reasons)
}
