package proxy

import (
	"context"
	"errors"
	"reflect"
	"time"
)

// check makes the member be checked as c says, nil for not at all. u.mu is
// held.
func (m *member) check(c *Health) {
	if c == nil {
		if m.cancel != nil {
			m.unchecked()
			if m.down {
				m.down, m.upSince = false, time.Now()
				m.upstream.changed(m, Up, nil, "no longer checked")
			}
		}
		return
	}
	if m.cancel != nil {
		if reflect.DeepEqual(m.checkConf, *c) {
			return
		}
		m.cancel()
	}
	ctx, cancel := context.WithCancel(m.upstream.ctx)
	m.cancel, m.checkConf = cancel, *c
	p := newProbe(*c, m.dial)
	if !m.upstream.server.start(func(context.Context) { m.checkAgain(ctx, p) }) {
		cancel()
	}
}

// unchecked ends the checks. u.mu is held.
func (m *member) unchecked() {
	if m.cancel != nil {
		m.cancel()
		m.cancel = nil
	}
	if m.readmit != nil {
		m.readmit.Stop()
	}
}

// checkAgain checks until ctx ends.
func (m *member) checkAgain(ctx context.Context, p *probe) {
	interval := time.Duration(p.config.Interval)
	for {
		start := time.Now()
		err := p.run(ctx)
		if ctx.Err() != nil {
			return
		}
		m.checked1(ctx, err)
		timer := time.NewTimer(time.Until(start.Add(jittered(interval, p.config.Jitter))))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// checked1 takes in the result of one check. A server that was never checked is
// believed to be up, and goes down with the first check that fails.
func (m *member) checked1(ctx context.Context, err error) {
	u := m.upstream
	m.counts.checks.Add(1)
	u.mu.Lock()
	if m.gone || ctx.Err() != nil {
		u.mu.Unlock()
		return
	}
	first := !m.checked
	m.checked = true
	var went ChangeKind
	if err != nil {
		m.counts.checksFailed.Add(1)
		m.passes, m.lastError = 0, err
		m.fails++
		if !m.down && (first || m.fails >= m.checkConf.Fall) {
			m.down, m.downSince = true, time.Now()
			went = Down
		}
	} else {
		m.fails = 0
		m.passes++
		if m.down && m.passes >= m.checkConf.Rise {
			m.down, m.downSince = false, time.Time{}
			m.upSince = time.Now()
			went = Up
		}
	}
	if went != "" {
		u.changed(m, went, err, "")
	}
	rule, drain := u.config.OnDown, u.config.DrainTime.within()
	u.mu.Unlock()
	switch went {
	case Up:
		u.wake()
	case Down:
		u.wake() // nobody is up any more, perhaps: those who wait need not
		m.endSessions(rule, drain, CutDown, func() bool {
			u.mu.Lock()
			defer u.mu.Unlock()
			return m.down
		})
	}
}

var errNoAnswer = errors.New("no answer in time")
