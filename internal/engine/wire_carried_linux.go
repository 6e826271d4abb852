package engine

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/sys"
)

// holds tells whether the session has sockets. One that will want some again for its
// limit of bytes keeps their place.
func (w *wiring) holds(s *Session, sockets bool) {
	if w.hears == nil || w.bare != sockets || s.dirs[0].max > 0 || s.dirs[1].max > 0 {
		return
	}
	w.bare = !sockets
	w.hears.Sockets(sockets)
}

// refresh takes over what the program has counted, and ends what has ended.
func (w *wiring) refresh(l *loop, s *Session) {
	if w.back.building {
		return // all is counted, and the entries may be gone
	}
	v, err := w.pair.Look()
	if err != nil {
		// Somebody took the entries out.
		w.phase = wireOff
		s.stopAll(l, Failed, fmt.Errorf("look up the spliced flow: %w", err))
		return
	}
	w.count(s, &v)
	if w.phase == wireOn {
		w.watch(s, &v)
	}
	if w.phase == wireOn {
		w.question(l, &v)
	}
	s.crossed(&v)
	if w.phase == wireLeaving {
		return // the sockets have to go first
	}
	for i := range s.dirs {
		if v.FIN[i] {
			s.dirs[i].finish(l, EOF, nil)
		}
	}
	for i := range s.dirs {
		if v.Reset[i] {
			s.dirs[i].finish(l, ResetBySource, syscall.ECONNRESET)
			s.dirs[1-i].finish(l, ResetByDrain, syscall.ECONNRESET)
		}
	}
	if v.Ended && !s.ended() {
		w.stats.EndedByHand = true
		s.stopAll(l, Stopped, ErrEndedByHand)
		return
	}
	if s.ended() {
		w.phase = wireOff
		w.pair.Finish()
		s.wired.Store(nil)
	}
	w.goOn(l, s)
	w.publish(s)
	s.settle(l)
}

// crossed takes over when something has moved by way of the program.
func (s *Session) crossed(v *wire.View) {
	if wired := s.wired.Load(); wired != nil && v.LastMoved > 0 {
		if moved := s.startedAt + wired.at(v.LastMoved).Sub(s.started); moved > s.active {
			s.active = moved
			s.progress.Store(int64(moved))
		}
	}
}

func (w *wiring) count(s *Session, v *wire.View) {
	for i := range s.dirs {
		if n := w.base[i] + v.Delivered[i]; n > s.dirs[i].out.Load() {
			s.dirs[i].out.Store(n)
		}
	}
	w.stats.take(v)
}

// cut ends a spliced flow, with a RST to both sides. It does nothing for a
// session that is not spliced.
func (w *wiring) cut(l *loop, s *Session) {
	if !w.carried() && !w.draining() {
		if w.pair != nil && w.phase != wireOff {
			w.withdraw(l, s, wire.Ended)
		}
		return
	}
	w.abort(l, s)
}

// abort is cut, for a session that is.
func (w *wiring) abort(l *loop, s *Session) {
	if v, err := w.pair.Look(); err == nil {
		w.count(s, &v)
		for i := range s.dirs {
			if v.FIN[i] {
				s.dirs[i].finish(l, EOF, nil)
			}
		}
	}
	w.phase, w.at = wireOff, 0
	w.publish(s)
	w.pair.Abort()
	s.wired.Store(nil)
	for i := range s.ends {
		if e := &s.ends[i]; e.fd >= 0 {
			e.fail(syscall.ECONNABORTED)
		}
	}
}

// wired is what others than the loop need of a spliced session.
type wired struct {
	pair  *wire.Pair
	alone atomic.Bool // the pair has no sockets, and needs none
	base  [2]int64
	note  string    // of the process that had it before
	epoch time.Time // the same moment by two clocks
	mono  int64
}

func newWired(pair *wire.Pair, base [2]int64) *wired {
	return &wired{pair: pair, base: base, epoch: time.Now(), mono: sys.Monotonic()}
}

// at is the time of a moment that the program has noted: always the same for the same.
func (w *wired) at(mono int64) time.Time { return w.epoch.Add(time.Duration(mono - w.mono)) }

// live brings st up to date.
func (w *wired) live(s *Session, st *Stats) {
	v, err := w.pair.Look()
	if err != nil {
		return // it has just ended, or the loop will find out
	}
	st.AToB.Bytes = max(st.AToB.Bytes, w.base[0]+v.Delivered[0])
	st.BToA.Bytes = max(st.BToA.Bytes, w.base[1]+v.Delivered[1])
	if moved := w.at(v.LastMoved); v.LastMoved > 0 && moved.After(st.LastProgress) {
		st.LastProgress = moved
	}
	if st.Wire != nil {
		full := *st.Wire
		full.take(&v)
		if seen := max(v.Flows[0].LastSeen, v.Flows[1].LastSeen); seen > 0 {
			full.LastSeen = w.at(int64(seen))
		}
		st.Wire = &full
	}
}

func (w *WireStats) take(v *wire.View) {
	for i, f := range v.Flows {
		w.Packets[i], w.Retransmits[i] = f.Packets, f.Retransmits
		w.Errors[i], w.TooBig[i] = f.Errors, f.TooBig
		w.Delivered[i] = v.Delivered[i]
	}
}
