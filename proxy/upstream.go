package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spliced-io/spliced/proxy/internal/tlsfiles"
)

// An upstream is one of the configuration, with what is known of its servers.
type upstream struct {
	server *Server
	name   string
	tls    atomic.Pointer[tlsfiles.Client] // nil: what clients send is passed on

	mu       sync.Mutex
	config   Upstream
	entries  []*entry
	members  []*member // of all entries, in their order
	balancer balancer
	known    []memberRecord  // of servers whose names are not resolved, by the process before this one
	strays   []*member       // that connections of another process are with, before it was configured
	waiting  []chan struct{} // the queue, the oldest first
	queued   atomic.Int32    // its length, for those without the lock
	stop     context.CancelFunc
	ctx      context.Context // of checks and resolvers; nil before it is configured
	closed   bool
}

// An entry is a server as configured. It has a member for each of its
// addresses.
type entry struct {
	target   Target
	addr     Addr
	members  []*member
	resolver *resolver // nil for an address
	unasked  bool      // it is a name that nobody has answered for
}

func newUpstream(s *Server, name string) *upstream {
	return &upstream{server: s, name: name}
}

// configure brings a configuration, complete with defaults, into force. What
// stays of the servers keeps its state.
func (u *upstream) configure(c Upstream) {
	u.mu.Lock()
	if u.ctx == nil { // not before: one that never comes into force has nothing to end
		u.ctx, u.stop = context.WithCancel(u.server.ctx)
	}
	old := u.config
	u.config = c
	have := make(map[string]*entry, len(u.entries))
	for _, e := range u.entries {
		have[e.target.Address] = e
	}
	u.entries = u.entries[:0:0]
	var resolvers []*resolver
	for _, t := range c.Servers {
		e := have[t.Address]
		if e == nil {
			addr, _ := parseTarget(t.Address) // Check has parsed it before
			e = &entry{target: t, addr: addr}
			e.start(u)
			if e.resolver != nil {
				resolvers = append(resolvers, e.resolver)
			}
		} else if e.resolver != nil && !sameResolve(old.Resolve, c.Resolve) {
			e.resolver.stop()
			e.resolver = newResolver(u, e)
			resolvers = append(resolvers, e.resolver)
		}
		delete(have, t.Address)
		e.target = t
		u.entries = append(u.entries, e)
	}
	var gone []*member
	for _, e := range have {
		if e.resolver != nil {
			e.resolver.stop()
		}
		gone = append(gone, e.members...)
	}
	u.refresh()
	u.mu.Unlock()
	for _, r := range resolvers {
		r.start()
	}
	u.retire(gone)
	u.wake()
}

func sameResolve(a, b Resolve) bool {
	return a.Interval == b.Interval && a.Timeout == b.Timeout && slices.Equal(a.Servers, b.Servers)
}

// start makes the member of an address, or the resolver of a name. u.mu is held.
func (e *entry) start(u *upstream) {
	switch e.addr.Network {
	case "unix", original:
		e.members = []*member{u.newcomer(e.addr.String(), e.addr)}
	case "tcp":
		if _, err := netip.ParseAddrPort(e.addr.Address); err == nil {
			e.members = []*member{u.newcomer(e.target.Address, e.addr)}
			return
		}
		fallthrough
	default:
		e.resolver, e.unasked = newResolver(u, e), true
		e.members = u.newcomers(e.target.Address)
	}
}

// refresh makes members what the entries and the configuration say. u.mu is
// held.
func (u *upstream) refresh() {
	u.members = u.members[:0:0]
	for _, e := range u.entries {
		for _, m := range e.members {
			m.configure(&u.config, &e.target)
			u.members = append(u.members, m)
		}
	}
	u.balancer.reset()
	for _, m := range u.members {
		m.check(u.config.Health)
	}
}

// resolved gives an entry the members of its addresses.
func (u *upstream) resolved(e *entry, found []resolvedAddr) {
	u.mu.Lock()
	if u.closed || !slices.Contains(u.entries, e) {
		u.mu.Unlock()
		return
	}
	have := make(map[netip.AddrPort]*member, len(e.members))
	for _, m := range e.members {
		have[m.addr] = m
	}
	e.members = e.members[:0:0]
	for _, a := range found {
		m := have[a.addr]
		if m == nil {
			m = newMember(u, e.target.Address+"="+a.addr.String(), Addr{Network: "tcp", Address: a.addr.String()}, a.weight)
		}
		delete(have, a.addr)
		m.share, m.second = a.weight, a.backup
		e.members = append(e.members, m)
	}
	settleHomes(e.members, found)
	first := e.unasked
	e.unasked = false
	gone := make([]*member, 0, len(have))
	for _, m := range have {
		gone = append(gone, m)
	}
	u.refresh()
	if first {
		for _, m := range e.members {
			u.recallKnown(m)
		}
		u.known = slices.DeleteFunc(u.known, func(r memberRecord) bool { return e.has(r.Server) })
	}
	u.mu.Unlock()
	u.retire(gone)
	u.wake()
}

// awaitNames waits a moment for the first answers about names, so that a server
// that starts finds its upstreams, unless ctx ends.
func (u *upstream) awaitNames(ctx context.Context) {
	u.mu.Lock()
	var resolvers []*resolver
	for _, e := range u.entries {
		if e.resolver != nil {
			resolvers = append(resolvers, e.resolver)
		}
	}
	u.mu.Unlock()
	timer := time.NewTimer(firstAnswer)
	defer timer.Stop()
	for _, r := range resolvers {
		select {
		case <-r.answered:
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		}
	}
}

// firstAnswer is how long a start waits for names.
const firstAnswer = 5 * time.Second

// close ends checks and resolvers. Connections follow the rule for servers that
// leave.
func (u *upstream) close() {
	u.mu.Lock()
	u.closed = true
	members := u.members
	u.members, u.entries = nil, nil
	u.mu.Unlock()
	u.stop()
	u.retire(members)
	u.wake()
}

// retire lets members go that are configured no longer.
func (u *upstream) retire(gone []*member) {
	if len(gone) == 0 {
		return
	}
	u.mu.Lock()
	rule, drain := u.config.OnRemoved, u.config.DrainTime.within()
	for _, m := range gone {
		m.gone = true
		m.unchecked()
	}
	u.mu.Unlock()
	for _, m := range gone {
		m.endSessions(rule, drain, CutRemoved, func() bool { return true })
	}
}

// A pickKey is what a choice may depend on.
type pickKey struct {
	source netip.Addr
	sni    string
}

var errFull = errors.New("every server is full")

// pick returns the members to try, the best first, which is counted as in use.
// errFull says that all have as many connections as they may.
func (u *upstream) pick(key pickKey) ([]*member, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.waiting) > 0 {
		return nil, errFull // they came first
	}
	return u.pickNow(key)
}

func (u *upstream) pickNow(key pickKey) ([]*member, error) {
	members, err := u.balancer.pick(u, key)
	if err != nil {
		return nil, err
	}
	members[0].active.Add(1)
	return members, nil
}

// serves says whether m can be connected to for that client: from its own address
// only where the family is the same. u.mu is held.
func (u *upstream) serves(m *member, key pickKey) bool {
	return !u.config.SourceAddress.Client || !m.addr.IsValid() || !key.source.IsValid() || m.addr.Addr().Unmap().Is4() == key.source.Is4()
}

// unavailable says why there is no server. u.mu is held.
func (u *upstream) unavailable(key pickKey) error {
	if slices.ContainsFunc(u.members, (*member).usable) { // but for this client
		return fmt.Errorf("%w %s: no server has an address of that family", errClientSource, key.source)
	}
	var why []string
	for _, e := range u.entries {
		if e.resolver != nil && len(e.members) == 0 {
			if err := e.resolver.lastError(); err != nil {
				why = append(why, err.Error())
			}
		}
	}
	for _, m := range u.members {
		if m.downSince.IsZero() {
			continue
		}
		why = append(why, fmt.Sprintf("%s is down: %v", m.name, m.lastError))
	}
	if why == nil {
		return errNoServer
	}
	return fmt.Errorf("%w: %s", errNoServer, strings.Join(why, "; "))
}
