package proxy

import (
	"fmt"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// connected notes that a client's connect has worked.
func (m *member) connected() {
	m.counts.connected.Add(1)
	u := m.upstream
	u.mu.Lock()
	defer u.mu.Unlock()
	m.connFailed = 0
}

// connectFailed notes that one has not.
func (m *member) connectFailed(err error) {
	m.counts.failed.Add(1)
	u := m.upstream
	u.mu.Lock()
	defer u.mu.Unlock()
	count(&m.failures, failReason(err))
	if m.connFailed++; m.connFailed >= u.config.Ejection.Failures {
		m.eject(fmt.Errorf("%d connects in a row failed, at last: %w", m.connFailed, err))
	}
}

// ended counts a connection out, and notes whether the server has reset it before
// its first byte.
func (m *member) ended(r splice.Result) {
	u := m.upstream
	early := r.BToA.Reason == splice.ResetBySource && r.BToA.Bytes == 0
	u.mu.Lock()
	if early = early && r.Ended.Sub(r.Stats.Started) < u.config.Ejection.EarlyReset.within(); early {
		m.counts.resets.Add(1)
		if m.resets++; m.resets >= u.config.Ejection.Failures {
			m.eject(fmt.Errorf("%d connections in a row were reset before the first byte", m.resets))
		}
	} else if r.BToA.Bytes > 0 {
		m.resets = 0
	}
	u.mu.Unlock()
	m.leave()
}

// eject takes the member out for a while, if there are others. u.mu is held.
func (m *member) eject(why error) {
	u := m.upstream
	c := &u.config.Ejection
	if c.Off || m.ejected || m.gone || !u.spareable(m) {
		return
	}
	m.connFailed, m.resets = 0, 0
	out := doubled(time.Duration(c.Time), m.ejections, time.Duration(c.MaxTime))
	m.ejections++
	m.putOut(why, out)
	u.changed(m, Ejected, why, out.String())
}

// doubled is d, doubled so many times, up to most.
func doubled(d time.Duration, times int, most time.Duration) time.Duration {
	if times > 62 || d > most>>times { // it would be more, or overflow
		return most
	}
	return d << times
}

// putOut takes it out until so much time has passed. u.mu is held.
func (m *member) putOut(why error, out time.Duration) {
	if m.readmit != nil { // it was about to be forgiven
		m.readmit.Stop()
	}
	m.ejected, m.ejectedFor, m.readmitAt = true, why, time.Now().Add(out)
	m.readmit = time.AfterFunc(out, m.admitAgain)
}

// spareable says whether clients can do without m: so many of its kind are not
// out, and another one is up.
func (u *upstream) spareable(m *member) bool {
	all, out, up := 0, 0, 0
	for _, o := range u.members {
		if o.usable() && o != m {
			up++
		}
		if o.backup != m.backup {
			continue
		}
		all++
		if o.ejected {
			out++
		}
	}
	return up > 0 && out+1 <= max(1, int(u.config.Ejection.MaxShare.of(float64(all))))
}

// admitAgain ends an ejection. Who is ejected soon again is so for longer.
func (m *member) admitAgain() {
	u := m.upstream
	u.mu.Lock()
	if !m.ejected {
		u.mu.Unlock()
		return
	}
	m.ejected = false
	m.upSince = time.Now()
	m.readmit = time.AfterFunc(time.Duration(u.config.Ejection.MaxTime), m.forgive)
	u.changed(m, Readmitted, nil, "")
	u.mu.Unlock()
	u.wake()
}

// forgive forgets earlier ejections.
func (m *member) forgive() {
	u := m.upstream
	u.mu.Lock()
	defer u.mu.Unlock()
	if !m.ejected {
		m.ejections = 0
	}
}

// changed tells the hooks. u.mu is held.
func (u *upstream) changed(m *member, what ChangeKind, err error, detail string) {
	u.tell(Change{Upstream: u.name, Server: m.name, What: what, Err: err, Detail: detail})
}

// tell queues c for the hooks. u.mu is held: it comes before the server's lock.
func (u *upstream) tell(c Change) {
	s := u.server
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tell(unsaid{change: &c})
}
