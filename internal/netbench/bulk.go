package netbench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// bulk sends, and with both receives, as fast as the path takes it.
func (s *Source) bulk(ctx context.Context, load Load, both bool) (*Outcome, error) {
	h := header{kind: kindBulk, both: both, size: load.Size, warmup: load.Warmup}
	streams, err := s.dialAll(ctx, load, load.Streams, h)
	if err != nil {
		return nil, err
	}
	return s.pump(ctx, load, streams)
}

// flow is what one stream of a bulk load ended with.
type flow struct {
	err     error
	verdict verdict
	back    window // of what the sink sent
	sndbuf  int
	tcp     transport
}

// pump runs the streams for the load's time, and closes them.
func (s *Source) pump(ctx context.Context, load Load, streams []*stream) (*Outcome, error) {
	// A relay that is stuck is found out soon after the end.
	limit := time.Now().Add(load.Warmup + load.Duration + s.patience)
	unblock := context.AfterFunc(ctx, func() {
		for _, st := range streams {
			_ = st.SetDeadline(time.Unix(1, 0))
		}
	})
	defer unblock()

	flows := make([]flow, len(streams))
	var stop atomic.Bool
	var wg sync.WaitGroup
	broken := make(chan struct{}, len(streams))
	for i, st := range streams {
		wg.Go(func() {
			defer st.Close()
			flows[i].err = st.SetDeadline(limit)
			if flows[i].err == nil {
				s.drive(st, load, &stop, &flows[i])
			}
			if flows[i].err != nil {
				broken <- struct{}{}
			}
		})
	}
	if wait(ctx, load.Warmup, broken) {
		s.OnPhase(PhaseMeasure)
		wait(ctx, load.Duration, broken)
		s.OnPhase(PhaseStop)
	}
	stop.Store(true)
	wg.Wait()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return sum(streams, flows)
}

// drive is one stream from its first byte to its verdict.
func (s *Source) drive(st *stream, load Load, stop *atomic.Bool, f *flow) {
	tail := newTail(s.pattern, st.header.stream|responseBit, 0)
	received := make(chan error, 1)
	go func() { received <- s.drain(st, load, tail, &f.back) }()

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

// drain reads and verifies until the end of the stream.
func (s *Source) drain(st *stream, load Load, tail *tail, w *window) error {
	w.start(load.Warmup)
	defer w.close()
	for {
		n, err := tail.readFrom(st)
		if n > 0 {
			w.add(n)
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

func sum(streams []*stream, flows []flow) (*Outcome, error) {
	var out Outcome
	for i := range flows {
		f := &flows[i]
		if f.err != nil {
			return nil, fmt.Errorf("stream %d of %d: %w", i+1, len(flows), f.err)
		}
		out.BytesPerS += f.verdict.Window.rate() + f.back.rate()
		out.Sent += streams[i].sent
		out.Received += f.verdict.Received
		out.TCP.Retransmits += f.tcp.Retransmits + f.verdict.TCP.Retransmits
		out.TCP.RTTUs += f.tcp.RTTUs / float64(len(flows))
		out.TCP.Cwnd += f.tcp.Cwnd
		out.Sndbuf = max(out.Sndbuf, f.sndbuf)
		out.Rcvbuf = max(out.Rcvbuf, f.verdict.Rcvbuf)
	}
	if out.BytesPerS == 0 {
		return nil, errors.New("nothing arrived within the measured time: too short, or stuck")
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
