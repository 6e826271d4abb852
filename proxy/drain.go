package proxy

import (
	"context"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// drainStep is the time between two connections, or lots of them, that a drain
// closes.
const drainStep = 20 * time.Millisecond

// Drain stops accepting and lets connections end, as [Config.Drain] says: by
// themselves at first, then closed one by one, by chance, until the timeout. It
// returns when all have ended, and with an error when the timeout or ctx has:
// then Close has something left to reset.
func (s *Server) Drain(ctx context.Context) error {
	c := s.CurrentConfig().Drain
	if c.Timeout < 0 { // for ever
		return s.Shutdown(ctx)
	}
	timeout := c.Timeout.within()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if spread := time.Duration(c.Spread.of(float64(timeout))); spread > 0 {
		s.start(func(closing context.Context) {
			stop := context.AfterFunc(closing, cancel)
			defer stop()
			s.thin(ctx, timeout-spread, spread)
		})
	}
	return s.Shutdown(ctx)
}

// thin closes the connections one by one in the time of spread, which begins
// after that of wait.
func (s *Server) thin(ctx context.Context, wait, spread time.Duration) {
	last := time.Now().Add(wait)
	end := last.Add(spread)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		now := time.Now()
		s.mu.Lock()
		n, next := lot(s.live.len, now.Sub(last), end.Sub(now))
		sessions := s.live.some(n)
		s.mu.Unlock()
		abortAll(sessions)
		if next == 0 {
			return
		}
		last = now
		timer.Reset(next)
	}
}

// lot is how many of n connections a drain closes now, some time since the last
// ones and with so much left, and after which time it closes more; 0 is never.
func lot(n int, since, left time.Duration) (now int, next time.Duration) {
	if left <= drainStep {
		return n, 0
	}
	now = int(float64(n) * float64(since) / float64(since+left))
	if now == 0 && n > 0 {
		// Fewer than steps, or the first: the next one may be further away.
		return 1, max(drainStep, left/time.Duration(n+1))
	}
	return now, drainStep
}

// some returns up to n of the sessions, spread over the list, and notes why they
// end.
func (l *list) some(n int) []*splice.Session {
	if n == 0 {
		return nil
	}
	var sessions []*splice.Session
	every := max(1, l.len/n)
	i := 0
	for c := l.first; c != nil && len(sessions) < n; c = c.next {
		if i++; i%every == 0 && c.session != nil {
			c.cut = CutDrained
			sessions = append(sessions, c.session)
		}
	}
	return sessions
}
