package proxy

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"testing"
	"time"
)

// unrun is an upstream whose servers, one for each weight, nobody asks.
func unrun(c Upstream, weights ...int) *upstream {
	c.Attempts = 1
	u := &upstream{server: &Server{}, name: "u", config: c}
	for i, weight := range weights {
		m := newMember(u, fmt.Sprintf("10.0.0.%d:80", i+1), Addr{Network: "tcp", Address: fmt.Sprintf("10.0.0.%d:80", i+1)}, 0)
		m.weight = weight
		u.members = append(u.members, m)
	}
	return u
}

// first is the server that a client would be sent to, by its place.
func (u *upstream) first(t *testing.T, key pickKey) int {
	t.Helper()
	picked, err := u.balancer.pick(u, key)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range u.members {
		if m == picked[0] {
			return i
		}
	}
	t.Fatalf("picked %s, which is none of the members", picked[0].name)
	return -1
}

// sources are clients of as many addresses.
func sources(n int) []pickKey {
	keys := make([]pickKey, n)
	for i := range keys {
		keys[i].source = netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})
	}
	return keys
}

// ways is where each of the keys leads.
func (u *upstream) ways(t *testing.T, keys []pickKey) []int {
	t.Helper()
	to := make([]int, len(keys))
	for i, key := range keys {
		to[i] = u.first(t, key)
	}
	return to
}

func shares(to []int, servers int) []float64 {
	part := make([]float64, servers)
	for _, i := range to {
		part[i] += 1 / float64(len(to))
	}
	return part
}

// Every server has its share of the slots to within one turn, whatever the weights,
// and of the clients as chance has it.
func TestMaglevShares(t *testing.T) {
	t.Parallel()
	for _, weights := range [][]int{{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {1, 2, 3}, {1}, {1, 1000}} {
		u := unrun(Upstream{Balance: Maglev, Hash: BySource}, weights...)
		got := shares(u.ways(t, sources(10_000)), len(weights))
		all := 0
		for _, weight := range weights {
			all += weight
		}
		slots := make([]int, len(weights))
		for _, i := range u.balancer.table.slots {
			slots[i]++
		}
		for i, weight := range weights {
			want := float64(weight) / float64(all)
			if off := math.Abs(float64(slots[i]) - want*maglevSize); off > float64(2*weight) {
				t.Errorf("weights %v: server %d has %d slots, %.0f off", weights, i, slots[i], off)
			}
			if math.Abs(got[i]-want) > 0.02 {
				t.Errorf("weights %v: server %d has %.3f of the clients, want %.3f", weights, i, got[i], want)
			}
		}
	}
}

// A client is sent to the same server again; when servers go, come or are full,
// clients of the others are moved hardly, or not at all.
func TestMaglevMovesFew(t *testing.T) {
	t.Parallel()
	keys := sources(10_000)
	u := unrun(Upstream{Balance: Maglev, Hash: BySource}, 1, 1, 1, 1, 1)
	before := u.ways(t, keys)
	moved := func(now []int) (own, others float64) {
		for i := range keys {
			if now[i] == before[i] {
				continue
			}
			if before[i] == 2 {
				own++
			} else {
				others++
			}
		}
		return own, others / float64(len(keys))
	}
	of := func(i int) (n float64) {
		for _, to := range before {
			if to == i {
				n++
			}
		}
		return n
	}
	if own, others := moved(unrun(Upstream{Balance: Maglev, Hash: BySource}, 1, 1, 1, 1, 1).ways(t, keys)); own+others != 0 {
		t.Errorf("another process sends %v and %v elsewhere", own, others)
	}
	m := u.members[2]
	for _, tt := range []struct {
		name      string
		out, back func()
		others    float64 // that may move, of all
	}{
		{"down", func() { m.down = true }, func() { m.down = false }, 0.05},
		{"full", func() { m.max = 1; m.active.Store(1) }, func() { m.max = 0; m.active.Store(0) }, 0},
		{"draining", func() { m.draining = true }, func() { m.draining = false }, 0.05},
	} {
		tt.out()
		now := u.ways(t, keys)
		own, others := moved(now)
		if own != of(2) || others > tt.others {
			t.Errorf("%s: %v of its %v clients are moved, and %.3f of all from others", tt.name, own, of(2), others)
		}
		for i, part := range shares(now, 5) {
			if want := 0.25; i != 2 && math.Abs(part-want) > 0.03 {
				t.Errorf("%s: server %d has %.3f then, want %.2f", tt.name, i, part, want)
			}
		}
		tt.back()
		if own, others = moved(u.ways(t, keys)); own+others != 0 {
			t.Errorf("%s: when it is back %v and %v are elsewhere", tt.name, own, others)
		}
	}
	// A sixth takes its share from all.
	six := unrun(Upstream{Balance: Maglev, Hash: BySource}, 1, 1, 1, 1, 1, 1)
	own, others := moved(six.ways(t, keys))
	if part := own/float64(len(keys)) + others; part < 1./6-0.02 || part > 1./6+0.05 {
		t.Errorf("a sixth server moves %.3f of the clients", part)
	}
}

// hash: sni keeps the clients of a name together, and spreads names; who sends none
// is hashed by address.
func TestMaglevByName(t *testing.T) {
	t.Parallel()
	u := unrun(Upstream{Balance: Maglev, Hash: BySNI}, 1, 1, 1, 1)
	clients := sources(2000)
	for name := range 5 {
		keys := append([]pickKey(nil), clients...)
		for i := range keys {
			keys[i].sni = fmt.Sprintf("tenant-%d.example", name)
		}
		if part := shares(u.ways(t, keys), 4)[u.first(t, keys[0])]; part < 1-1e-9 {
			t.Errorf("only %.3f of the clients of a name are together", part)
		}
	}
	names := make([]pickKey, 2000)
	for i := range names {
		names[i] = pickKey{source: clients[0].source, sni: fmt.Sprintf("tenant-%d.example", i)}
	}
	for what, keys := range map[string][]pickKey{"names": names, "clients without one": clients} {
		for i, part := range shares(u.ways(t, keys), 4) {
			if math.Abs(part-0.25) > 0.05 {
				t.Errorf("server %d has %.3f of the %s", i, part, what)
			}
		}
	}
}

// Of two servers drawn by chance the less busy one is taken: a busy one is left with
// the draws in which it was both.
func TestRandomTwoTakesTheLessBusy(t *testing.T) {
	t.Parallel()
	u := unrun(Upstream{Balance: RandomTwo}, 1, 1)
	u.members[0].active.Store(100)
	if part := shares(u.ways(t, make([]pickKey, 4000)), 2)[0]; part < 0.2 || part > 0.3 {
		t.Errorf("the busy server has %.3f of the clients, want a quarter", part)
	}
	u.members[0].active.Store(0)
	u.members[0].weight = 3
	if part := shares(u.ways(t, make([]pickKey, 4000)), 2)[0]; part < 0.85 {
		t.Errorf("the heavy server has %.3f of the clients, want nearly all: it is drawn more often and less busy for its weight", part)
	}
}

// A server that has come up is given a tenth at first, and its full share when the
// time of slow start is over.
func TestSlowStartShares(t *testing.T) {
	t.Parallel()
	const hour = time.Hour
	for _, tt := range []struct{ since, want float64 }{{0, 0.1}, {0.05, 0.1}, {0.5, 0.5}, {1, 1}, {2, 1}} {
		u := unrun(Upstream{Balance: RoundRobin, SlowStart: Timeout(hour)}, 1, 2)
		u.members[1].upSince = time.Now().Add(-time.Duration(tt.since * float64(hour)))
		got := shares(u.ways(t, make([]pickKey, 600)), 2)[1]
		if want := 2 * tt.want / (1 + 2*tt.want); math.Abs(got-want) > 0.01 {
			t.Errorf("after %v of the time it has %.3f of the clients, want %.3f", tt.since, got, want)
		}
	}
	u := unrun(Upstream{Balance: RoundRobin, SlowStart: Never}, 1, 1)
	u.members[1].upSince = time.Now()
	if got := shares(u.ways(t, make([]pickKey, 600)), 2)[1]; math.Abs(got-0.5) > 0.01 {
		t.Errorf("without a slow start it has %.3f of the clients", got)
	}
}

// The check that finds a server working again begins its slow start.
func TestSlowStartBegins(t *testing.T) {
	t.Parallel()
	u := unrun(Upstream{SlowStart: Timeout(time.Hour)}, 1)
	m := u.members[0]
	m.checkConf = Health{Rise: 1, Fall: 1}
	ctx := context.Background()
	m.checked1(ctx, nil)
	if got := m.effective(&u.config); got != 1 {
		t.Errorf("a server that was never down has %v of its share", got)
	}
	m.checked1(ctx, errNoAnswer)
	m.checked1(ctx, nil)
	if got := m.effective(&u.config); math.Abs(got-slowStart) > 0.01 {
		t.Errorf("a server that has come up again has %v of its share", got)
	}
}

// A jittered time is as much shorter as longer, and never by more than its part.
func TestJitter(t *testing.T) {
	t.Parallel()
	const n, d = 4000, time.Minute
	p := &policy{life: d, jitter: 20}
	var least, most, sum time.Duration = d, d, 0
	for range n {
		v := p.lifetime()
		least, most, sum = min(least, v), max(most, v), sum+v
	}
	if least < d*8/10 || most > d*12/10 || least > d*81/100 || most < d*119/100 || (sum/n-d).Abs() > d/100 {
		t.Errorf("lifetimes of %v to %v, %v on average; want %v and a fifth more or less", least, most, sum/n, d)
	}
	if p.jitter = 0; p.lifetime() != d {
		t.Error("without jitter a lifetime is another one")
	}
	if p.life = 0; p.lifetime() != 0 {
		t.Error("a lifetime that was not asked for")
	}
}

func TestDoubled(t *testing.T) {
	t.Parallel()
	const s, h = time.Second, 100 * 365 * 24 * time.Hour
	for _, tt := range []struct {
		d     time.Duration
		times int
		most  time.Duration
		want  time.Duration
	}{
		{s, 0, 5 * s, s},
		{s, 2, 5 * s, 4 * s},
		{s, 2, 4 * s, 4 * s},
		{s, 3, 5 * s, 5 * s},
		{s, 1000, 5 * s, 5 * s},
		{h, 0, h, h},
		{h, 10, h, h}, // more than a duration can be
		{h / 2, 62, h, h},
	} {
		if got := doubled(tt.d, tt.times, tt.most); got != tt.want {
			t.Errorf("%v doubled %d times, %v at most, is %v; want %v", tt.d, tt.times, tt.most, got, tt.want)
		}
	}
}

// An ejection puts an end to the forgiving of those before it.
func TestEjectedIsNotForgiven(t *testing.T) {
	t.Parallel()
	u := unrun(Upstream{Ejection: Ejection{Failures: 1, Time: Duration(time.Hour), MaxTime: Duration(time.Hour), MaxShare: 100}}, 1, 1)
	m := u.members[0]
	m.connectFailed(errNoAnswer)
	m.readmit.Stop()
	m.admitAgain()
	forgiving := m.readmit
	m.connectFailed(errNoAnswer)
	defer m.readmit.Stop()
	if !m.ejected || m.ejections != 2 || forgiving.Stop() {
		t.Errorf("ejected: %v, %d times, and it would be forgiven meanwhile", m.ejected, m.ejections)
	}
}
