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
	due := time.Now().Add(wait)
	end := due.Add(spread)
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
		n, next := lot(s.live.len, now.Sub(due), end.Sub(now))
		sessions := s.live.some(n)
		s.mu.Unlock()
		abortAll(sessions)
		due = now.Add(next)
		timer.Reset(max(next, drainStep))
	}
}

// lot is how many of n connections a drain closes now, where the next one was due
// some time ago and so much time is left, and when the one after them is due.
func lot(n int, late, left time.Duration) (now int, next time.Duration) {
	if left <= drainStep || n == 0 {
		return n, drainStep
	}
	each := (late + left) / time.Duration(n)
	now = min(n, 1+int(late/max(1, each)))
	return now, time.Duration(now)*each - late
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
