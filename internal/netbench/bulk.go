package netbench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// bulk sends, and with both receives, as fast as the path takes it.
func (s *Source) bulk(ctx context.Context, load Load, both bool) (*Outcome, error) {
	h := header{
		kind: kindBulk, both: both, size: load.Size,
		load: rand.Uint64(), window: windowTimes{load.Warmup, load.Duration},
		streams: load.Streams, settle: s.settle(),
	}
	streams, err := s.dialAll(ctx, load, load.Streams, h)
	if err != nil {
		return nil, err
	}
	// A relay that is stuck is found out soon after the end.
	p := s.pump(ctx, load, streams, s.patience+s.settle()+load.Warmup+load.Duration+s.patience)
	// The sink's window began before this one, with what it has said so by. So
	// it is over before this one is.
	started := p.start.await(ctx, p.broken, s.patience)
	late := p.start.late()
	if started && wait(ctx, load.Warmup, p.broken) {
		s.OnPhase(PhaseMeasure)
		wait(ctx, load.Duration, p.broken)
		s.OnPhase(PhaseStop)
	}
	out, err := p.end(ctx)
	if err != nil {
		return nil, err
	}
	if out.BytesPerS == 0 {
		return nil, fmt.Errorf("nothing arrived %w", errOutside)
	}
	out.noteLate(late, load.Streams)
	return out, nil
}

// flow is what one stream of a bulk load ended with.
type flow struct {
	err     error
	verdict verdict
	back    int64 // bytes that the sink sent, within the window
	sndbuf  int
	tcp     transport
}

// pumping is a load that is under way.
type pumping struct {
	times   windowTimes
	start   *start
	streams []*stream
	flows   []flow
	stop    atomic.Bool
	broken  chan struct{} // told when a stream breaks
	unblock func() bool
	wg      sync.WaitGroup
}

// pump starts to send on all streams. What has not ended after limit fails;
// the caller ends it before.
func (s *Source) pump(ctx context.Context, load Load, streams []*stream, limit time.Duration) *pumping {
	p := &pumping{
		times: windowTimes{load.Warmup, load.Duration}, start: newStart(len(streams), s.settle()),
		streams: streams, flows: make([]flow, len(streams)), broken: make(chan struct{}, len(streams)),
	}
	deadline := time.Now().Add(limit)
	p.unblock = context.AfterFunc(ctx, func() {
		for _, st := range streams {
			_ = st.SetDeadline(time.Unix(1, 0))
		}
	})
	w := newWindow(p.times, p.start)
	for i, st := range streams {
		p.wg.Go(func() {
			defer st.Close()
			f := &p.flows[i]
			f.err = st.SetDeadline(deadline)
			if f.err == nil {
				s.drive(st, load, w, &p.stop, f)
			}
			if f.err != nil {
				p.broken <- struct{}{}
			}
		})
	}
	return p
}

// end stops sending, and waits for every byte and every verdict.
func (p *pumping) end(ctx context.Context) (*Outcome, error) {
	p.stop.Store(true)
	p.wg.Wait()
	p.unblock()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return sum(p.times, p.streams, p.flows)
}

// drive is one stream from its first byte to its verdict.
func (s *Source) drive(st *stream, load Load, w *window, stop *atomic.Bool, f *flow) {
	tail := newTail(s.pattern, st.header.stream|responseBit, 0)
	received := make(chan error, 1)
	go func() { received <- s.drain(st, tail, w, &f.back) }()

	for !stop.Load() && f.err == nil {
		var n int
		n, f.err = st.Write(s.pattern.at(st.header.stream, st.sent, load.Size))
		st.sent += int64(n)
		s.Moved.Add(int64(n))
	}
	f.sndbuf = sndbuf(st.TCPConn)
	_, f.tcp = inspect(st.TCPConn)
	if f.err == nil {
		f.err = st.CloseWrite()
		// The time for the answer runs from here.
		_ = st.SetDeadline(time.Now().Add(s.patience))
	}
	if errors.Is(f.err, os.ErrDeadlineExceeded) {
		f.err = fmt.Errorf("the path took no more bytes for %v", s.patience)
	}
	if f.err != nil {
		// The reader may know better why: a mismatch, or the sink's own words.
		const moment = 200 * time.Millisecond
		_ = st.SetReadDeadline(time.Now().Add(moment))
	}
	readErr := <-received
	if f.err == nil && readErr != nil {
		f.err = s.explain(readErr)
		var mismatch *MismatchError
		if errors.As(readErr, &mismatch) {
			f.err = fmt.Errorf("source: %w", readErr)
		}
		return
	}
	if readErr == nil {
		var judged error
		f.verdict, judged = s.judge(st, tail)
		switch {
		case judged != nil && f.err != nil:
			f.err = fmt.Errorf("%w (%w)", judged, f.err)
		case judged != nil:
			f.err = judged
		}
	}
}

// drain reads and verifies until the end of the stream. The first byte says
// that the sink has got some.
func (s *Source) drain(st *stream, tail *tail, w *window, inWindow *int64) error {
	for begun := false; ; {
		n, err := tail.readFrom(st)
		if !begun && (n > 0 || tail.held > 0) {
			begun = true
			w.begin()
		}
		if n > 0 {
			if w.open() {
				*inWindow += int64(n)
			}
			s.Moved.Add(int64(n))
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func sum(times windowTimes, streams []*stream, flows []flow) (*Outcome, error) {
	var out Outcome
	var counted int64
	for i := range flows {
		f := &flows[i]
		if f.err != nil {
			return nil, fmt.Errorf("stream %d of %d: %w", i+1, len(flows), f.err)
		}
		counted += f.verdict.InWindow + f.back
		out.Sent += streams[i].sent
		out.Received += f.verdict.Received
		out.TCP.Retransmits += f.tcp.Retransmits + f.verdict.TCP.Retransmits
		out.TCP.RTTUs += f.tcp.RTTUs / float64(len(flows))
		out.TCP.Cwnd += f.tcp.Cwnd
		out.Sndbuf = max(out.Sndbuf, f.sndbuf)
		out.Rcvbuf = max(out.Rcvbuf, f.verdict.Rcvbuf)
	}
	if times.duration > 0 {
		out.BytesPerS = float64(counted) / times.duration.Seconds()
	}
	return &out, nil
}

// wait lets d pass and says whether it did: not when ctx ended or a stream
// broke.
func wait(ctx context.Context, d time.Duration, broken <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-broken:
		return false
	case <-ctx.Done():
		return false
	}
}
