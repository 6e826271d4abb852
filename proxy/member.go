package proxy

import (
	"context"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// A member is one address of an upstream. The upstream's lock is held for all
// but the first fields.
type member struct {
	upstream *upstream
	name     string
	addr     netip.AddrPort // invalid for a unix socket, and for what each client names
	dial     Addr
	target   splice.Target
	active   atomic.Int64 // connections, those being made included
	counts   memberCounts
	home     atomic.Pointer[home] // that it is an address of; nil: no other member is the same server

	weight     int
	configured int  // weight, whatever an operator has said
	listed     int  // weight in the configuration, whatever an SRV record says
	share      int  // weight of an SRV record; 0: none
	standby    bool // its family of IP is the one that the home's others come before
	backup     bool
	second     bool    // of a lower priority than other SRV records
	max        int     // connections; 0: any number
	current    float64 // of round-robin
	gone       bool
	draining   bool // an operator said so
	down       bool
	downSince  time.Time
	lastError  error     // of the last check that failed
	upSince    time.Time // it came up again; zero: it never was down
	passes     int       // checks in a row
	fails      int
	checked    bool
	ejected    bool
	ejections  int
	ejectedFor error
	readmit    *time.Timer
	readmitAt  time.Time
	cancel     context.CancelFunc // of its check
	checkConf  Health
	connFailed int // connects in a row
	failures   map[FailReason]uint64
	steered    int // weight that an operator has set; 0: none
	resets     int // early ones, in a row
}

type memberCounts struct {
	connected, failed, resets, checks, checksFailed atomic.Uint64
	bytesToServer, bytesToClient                    atomic.Int64 // of sessions that have ended
}

func newMember(u *upstream, name string, addr Addr, share int) *member {
	m := &member{upstream: u, name: name, dial: addr, share: share}
	var err error
	switch addr.Network {
	case original: // see conn.targetAt
	case "unix":
		m.target, err = splice.NewUnixTarget(addr.Address)
	default:
		m.addr, err = netip.ParseAddrPort(addr.Address)
		if err == nil {
			m.target, err = splice.NewTarget(m.addr)
		}
	}
	if err != nil {
		// Parsed before, but for the zone of an address: that may come later, and
		// so long connecting fails.
		m.lastError = err
	}
	m.target.Name = name
	return m
}

// dialled is the address that connections go to.
func (m *member) dialled() string {
	if m.addr.IsValid() {
		return m.addr.String()
	}
	return m.name
}

// configure takes what the configuration says of the member.
func (m *member) configure(c *Upstream, t *Target) {
	m.weight, m.backup, m.max = t.Weight, t.Backup || m.second, t.MaxConnections
	if m.share > 0 {
		m.weight *= m.share
	}
	// What an operator has said holds for the weight that he saw.
	if m.steered > 0 && m.listed != 0 && m.listed != t.Weight {
		m.steered = 0
		m.upstream.changed(m, Reweighted, nil, strconv.Itoa(m.weight)+", as configured now")
	}
	m.listed, m.configured = t.Weight, m.weight
	if m.steered > 0 {
		m.weight = m.steered
	}
	if m.max == 0 {
		m.max = c.MaxConnections
	}
}

// usable says whether clients may be sent to it, room or not.
func (m *member) usable() bool { return !m.gone && !m.draining && !m.down && !m.ejected }

func (m *member) full() bool { return m.max > 0 && m.active.Load() >= int64(m.max) }

// slowStart is what a server that came up is given at first.
const slowStart = 0.1

// effective returns the weight as it is now.
func (m *member) effective(c *Upstream) float64 {
	w := float64(m.weight)
	if c.SlowStart <= 0 || m.upSince.IsZero() {
		return w
	}
	part := float64(time.Since(m.upSince)) / float64(c.SlowStart)
	return w * min(1, max(slowStart, part))
}

// enter counts a connection, if there is room for it. As in pickNow the upstream's lock is
// held from the look to the count: there are never more than may be.
func (m *member) enter() bool {
	m.upstream.mu.Lock()
	defer m.upstream.mu.Unlock()
	if m.full() {
		return false
	}
	m.active.Add(1)
	return true
}

// leave counts it out, and lets the next of the queue in.
func (m *member) leave() {
	m.active.Add(-1)
	m.upstream.wakeOne()
}

// endSessions applies rule to the member's connections. With drain they are
// closed after that time, if still is true then.
func (m *member) endSessions(rule SessionRule, drain time.Duration, cut string, still func() bool) {
	s := m.upstream.server
	switch rule {
	case CloseSessions:
		s.start(func(context.Context) { s.cutSessions(cut, func(c *conn) bool { return c.member == m }) })
	case DrainSessions:
		if drain == 0 {
			return
		}
		s.start(func(ctx context.Context) {
			timer := time.NewTimer(drain)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
			if still() {
				s.cutSessions(cut, func(c *conn) bool { return c.member == m })
			}
		})
	}
}
