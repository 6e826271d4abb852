package engine

import (
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/pipe"
	"github.com/spliced-io/spliced/internal/probe"
)

// A Reactor spreads sessions over event loops, one per CPU. The loops start
// with the first session and end soon after the last: a reactor without
// sessions holds no goroutine and no descriptor. The zero value is ready.
type Reactor struct {
	pipes  pipe.Pool
	sample sync.Once // of copies
	copies bool      // this kernel's splice(2) copies pages, as it was found to

	mu     sync.Mutex
	epoch  time.Time
	loops  []*loop
	turn   int
	joined map[uint64]struct{} // cookies of the sockets in use

	wire    wirePlanes
	sockmap sockmapPlane

	// SockmapPairs is how many pairs the engine sockmap has room for; 0 is
	// 8,192. It is not to be changed once sessions were started.
	SockmapPairs uint32
}

// Start joins two sockets. On success their descriptors belong to the session.
// The error is a bare errno, or one that wraps it.
func (r *Reactor) Start(spec Spec) (*Session, error) {
	s := &Session{limits: spec.Limits, own: spec.Own, shared: true, onEnd: spec.OnEnd}
	if s.wire = wireFor(spec.Kind, spec.Wire, spec.Limits); s.wire != nil {
		if spec.OnSockets != nil || spec.Note != nil {
			s.wire.hears = hearing{spec.OnSockets, spec.Note}
		}
		if !spec.Own {
			s.wire.refuse(wire.Borrowed)
			s.wire.publish(s)
		}
	}
	if s.redirect = redirectFor(spec.Kind); s.redirect != nil {
		if err := r.OpenSockmap(); err != nil {
			return nil, err
		}
	}
	if spec.Kind == Wire {
		if _, err := r.OpenWire(spec.Wire.config()); err != nil {
			return nil, err
		}
	}
	s.timer.owner = s
	s.ends[0].fd, s.ends[1].fd = spec.A, spec.B
	kind, why := r.choose(spec.Kind)
	s.dirs[0].init(&s.ends[0], &s.ends[1], spec.Limits.MaxAToB, spec.FromA)
	s.dirs[1].init(&s.ends[1], &s.ends[0], spec.Limits.MaxBToA, spec.FromB)
	for i := range s.dirs {
		s.dirs[i].choice.init(kind, why)
	}
	if spec.Past != nil {
		if err := s.goOn(spec.Past); err != nil {
			return nil, err
		}
	}
	for i := range s.ends {
		e := &s.ends[i]
		e.session, e.slot = s, -1
		if err := e.prepare(); err != nil {
			s.restore(i)
			return nil, err
		}
		s.setOptions(i)
	}
	if err := r.claim(s); err != nil {
		s.restore(len(s.ends))
		return nil, err
	}
	s.started = time.Now()
	for {
		l, err := r.loop()
		if err != nil {
			r.release(s)
			s.restore(len(s.ends))
			return nil, err
		}
		s.loop, s.startedAt = l, r.clock()
		if spec.Past != nil {
			s.age(spec.Past, s.startedAt)
		}
		if l.post(command{what: join, s: s}) {
			return s, nil
		}
	}
}

// choose says what auto is on this kernel. Some copy in splice(2) what older
// ones shared; then a pipe between the sockets only costs.
func (r *Reactor) choose(k Kind) (Kind, Why) {
	if k != Auto && k != Wire && k != Sockmap {
		return k, WhyNoBytes
	}
	r.sample.Do(func() { r.copies = probe.SocketPages().Answer == probe.No })
	if r.copies {
		return Copy, WhyCopiesAnyway
	}
	return Auto, WhyNoBytes
}

func (d *direction) init(src, dst *endpoint, limit int64, first []byte) {
	d.src, d.dst, d.max = src, dst, limit
	if limit > 0 && int64(len(first)) > limit {
		d.undelivered = first[limit:]
		first = first[:limit]
	}
	d.first, d.in = first, int64(len(first))
}

// restore undoes the preparation of the first n sockets.
func (s *Session) restore(n int) {
	for i := range s.ends[:n] {
		s.ends[i].restore()
	}
}

// claim enters both sockets as joined.
func (r *Reactor) claim(s *Session) error {
	a, b := s.ends[0].cookie, s.ends[1].cookie
	if a == b {
		return syscall.EINVAL
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.joined == nil {
		r.joined = make(map[uint64]struct{})
	}
	_, busyA := r.joined[a]
	_, busyB := r.joined[b]
	if busyA || busyB {
		return syscall.EBUSY
	}
	r.joined[a], r.joined[b] = struct{}{}, struct{}{}
	return nil
}

func (r *Reactor) release(s *Session) {
	if s.ends[0].cookie == 0 {
		return // never claimed: nobody else has these descriptors
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.joined, s.ends[0].cookie)
	delete(r.joined, s.ends[1].cookie)
}

// loop returns the loop whose turn it is, started if it has to be.
func (r *Reactor) loop() (*loop, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.init()
	r.turn++
	return r.started(r.turn % len(r.loops))
}

func (r *Reactor) init() {
	if r.loops == nil {
		r.epoch = time.Now()
		r.loops = make([]*loop, runtime.NumCPU())
	}
}

// started returns loop i, started if it has to be. r.mu is held.
func (r *Reactor) started(i int) (*loop, error) {
	if l := r.loops[i]; l != nil && !l.ended() {
		return l, nil
	}
	l, err := newLoop(r)
	if err != nil {
		return nil, err
	}
	l.now = r.clock()
	r.loops[i] = l
	go l.run() // ends by itself once it has no sessions
	return l, nil
}

func (l *loop) ended() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// clock is the time since the reactor's first session, plus one so that 0 can
// mean never.
func (r *Reactor) clock() time.Duration { return time.Since(r.epoch) + 1 }
