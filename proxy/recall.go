package proxy

import (
	"errors"
	"slices"
	"strings"
	"time"
)

// recallServers makes servers what the predecessor knew of them.
func (s *Server) recallServers(records []memberRecord) {
	s.mu.Lock()
	upstreams := s.upstreams
	s.mu.Unlock()
	for _, r := range records {
		u := upstreams[r.Upstream]
		if u == nil {
			continue
		}
		u.mu.Lock()
		if n := slices.IndexFunc(u.members, func(m *member) bool { return m.name == r.Server }); n >= 0 {
			u.members[n].recallAll(&r)
		} else if slices.ContainsFunc(u.entries, func(e *entry) bool { return e.unasked && e.has(r.Server) }) {
			u.known = append(u.known, r)
		}
		u.mu.Unlock()
	}
}

// recallAll makes the member what the predecessor knew of it. The upstream's lock is held.
func (m *member) recallAll(r *memberRecord) {
	m.draining = r.Draining
	if r.Weight > 0 && r.Weight <= maxWeight && r.Listed == m.listed {
		m.steered, m.weight = r.Weight, r.Weight
	}
	m.recallChecks(r)
	m.recall(r)
	m.upstream.balancer.reset()
}

// recallKnown does so with a member of a name that was not asked for, or had not been answered, when the
// predecessor told of it. u.mu is held.
func (u *upstream) recallKnown(m *member) {
	if n := slices.IndexFunc(u.known, func(r memberRecord) bool { return r.Server == m.name }); n >= 0 {
		r := u.known[n]
		u.known = slices.Delete(u.known, n, n+1)
		m.recallAll(&r)
	}
}

// has says whether that is the name of a member of the entry, which is a name.
func (e *entry) has(member string) bool {
	name, _, ok := strings.Cut(member, "=")
	return ok && name == e.target.Address
}

// recallChecks makes the member what the checks of the predecessor have found. Where it was up
// there, a first check in vain is one like any other: while two processes are at work and
// thousands of connections move, an answer may come late, and with one server all clients would
// be sent away. The upstream's lock is held.
func (m *member) recallChecks(r *memberRecord) {
	switch {
	case m.upstream.config.Health == nil:
	case r.Down != "" && !m.checked:
		m.checked, m.down, m.downSince, m.lastError = true, true, time.Now(), errors.New(r.Down)
	case r.Up && !m.checked:
		m.checked, m.fails = true, max(0, r.Fails)
	case r.Up && m.down:
		m.fails += max(0, r.Fails)
		if m.fails < m.checkConf.Fall {
			m.down, m.downSince = false, time.Time{}
			m.upstream.changed(m, Up, nil, "the process before this one has found it so")
		}
	}
}

// recall is the inverse of record. The upstream's lock is held.
func (m *member) recall(r *memberRecord) {
	c := &m.upstream.config
	if r.UpFor > 0 {
		m.upSince = time.Now().Add(-r.UpFor)
	}
	if c.Ejection.Off {
		return
	}
	m.ejections, m.connFailed, m.resets = max(0, r.Ejections), max(0, r.ConnFailed), max(0, r.Resets)
	switch {
	case r.Ejected > 0 && !m.ejected && m.upstream.spareable(m):
		m.putOut(errors.New(r.EjectedFor), min(r.Ejected, time.Duration(c.Ejection.MaxTime)))
	case m.ejections > 0:
		m.readmit = time.AfterFunc(time.Duration(c.Ejection.MaxTime), m.forgive)
	}
}
