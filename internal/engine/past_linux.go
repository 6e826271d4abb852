package engine

import (
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/sys"
)

// HandOver ends the session at once, waiting for nobody, unless it is about to
// end by itself: that is left alone. Packets that a program carries are taken
// back first, which takes as long as it takes. It does not wait.
func (s *Session) HandOver() { s.loop.post(command{what: handOver, s: s}) }

// handOver is HandOver on the loop.
func (s *Session) handOver(l *loop) {
	if s.dial != nil || s.ended() {
		return
	}
	s.stopping = true
	s.run(l)                  // a last attempt to deliver; it may find the end
	l.now = l.reactor.clock() // which may have taken long: the age goes on from here
	if s.over || s.ended() || s.wire.carried() || s.wire.draining() {
		return
	}
	s.stopAll(l, Stopped, ErrStopped)
}

// Past is complete once Done is closed.
func (s *Session) Past() Past {
	p := s.past([2]DirectionStats{s.dirs[0].stats(), s.dirs[1].stats()}, s.endAt-s.startedAt, s.endAt-s.active)
	for i, errno := range [2]*int{&p.BrokenA, &p.BrokenB} {
		if e, ok := s.ends[i].err.(syscall.Errno); ok {
			*errno = int(e)
		}
	}
	return p
}

// past is what is known of a session that goes on elsewhere: what a stop has ended does, too.
func (s *Session) past(now [2]DirectionStats, age, quiet time.Duration) Past {
	p := Past{
		Idle: s.limits.Idle, HalfClose: s.limits.HalfClose, MaxLife: s.limits.Lifetime,
		Age: max(0, age), Quiet: max(0, quiet),
	}
	rates := [2]int64{s.limits.RateAToB, s.limits.RateBToA}
	for i, d := range [2]*PastDirection{&p.AToB, &p.BToA} {
		st := &now[i]
		*d = PastDirection{Bytes: st.Bytes, Spliced: st.Spliced, Redirected: st.Redirected, Max: s.dirs[i].max, Rate: rates[i], Reason: st.Reason}
		if st.Reason == Stopped {
			d.Reason = Running
		}
	}
	return p
}

// goOn makes s, which has not begun, the continuation of p.
func (s *Session) goOn(p *Past) error {
	for i, pd := range [2]*PastDirection{&p.AToB, &p.BToA} {
		d := &s.dirs[i]
		if pd.Bytes < 0 || pd.Spliced < 0 || pd.Redirected < 0 || pd.Redirected > pd.Bytes || d.max > 0 && pd.Bytes+d.in > d.max {
			return syscall.EINVAL
		}
		d.in += pd.Bytes
		d.out.Store(pd.Bytes - pd.Redirected)
		d.redirected = pd.Redirected
		d.spliced.Store(pd.Spliced)
		if pd.Reason != Running {
			d.first = nil
			d.state.Store(uint32(pd.Reason))
		}
	}
	if s.ended() || p.Age < 0 || p.Quiet < 0 {
		return syscall.EINVAL
	}
	for i, errno := range [2]int{p.BrokenA, p.BrokenB} {
		s.ends[i].continued = true
		if errno != 0 {
			s.ends[i].err = syscall.Errno(errno)
		}
	}
	return nil
}

// age makes the session's clocks those of p.
func (s *Session) age(p *Past, now time.Duration) {
	s.started = time.Now().Add(-p.Age)
	s.startedAt, s.quiet = now-p.Age, p.Quiet
	if p.Quiet < p.Age {
		s.progress.Store(int64(now - p.Quiet))
	}
	for i := range s.ends {
		if e := &s.ends[i]; e.resettable && !s.setOptions(i) {
			_ = sys.SetKeepAlive(e.fd, keepIdle, keepInterval, keepCount) // it may not have come to that; a peer may be gone
		}
	}
}
