package netbench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// clock is shared by the streams of one load.
type clock struct {
	measure atomic.Bool // the warm-up is over
	stop    atomic.Bool
}

// exchange is what one stream of a request/response load ended with.
type exchange struct {
	err      error
	latency  *hdrhistogram.Histogram
	lag      *hdrhistogram.Histogram // nil in a closed loop
	verdict  verdict
	tcp      transport
	measured int64
}

// rr sends a request, waits for the response, and sends the next.
func (s *Source) rr(ctx context.Context, load Load) (*Outcome, error) {
	return s.exchanges(ctx, load, s.closedLoop)
}

// rrOpen sends requests at their planned times, whatever the responses do.
func (s *Source) rrOpen(ctx context.Context, load Load) (*Outcome, error) {
	return s.exchanges(ctx, load, s.openLoop)
}

type loop func(st *stream, b *blocking, load Load, c *clock, x *exchange) error

func (s *Source) exchanges(ctx context.Context, load Load, run loop) (*Outcome, error) {
	streams, err := s.dialAll(ctx, load, load.Streams, header{kind: kindEcho, size: load.Size})
	if err != nil {
		return nil, err
	}
	defer closeStreams(streams)
	unblock := context.AfterFunc(ctx, func() {
		for _, st := range streams {
			hangUp(st)
		}
	})
	defer unblock()

	results := make([]exchange, len(streams))
	var c clock
	var wg sync.WaitGroup
	broken := make(chan struct{}, len(streams))
	for i, st := range streams {
		wg.Go(func() {
			results[i].err = s.converse(st, load, &c, &results[i], run)
			if results[i].err != nil {
				broken <- struct{}{}
			}
		})
	}
	var began, ended time.Time
	if wait(ctx, load.Warmup, broken) {
		s.OnPhase(PhaseMeasure)
		began = time.Now()
		c.measure.Store(true)
		wait(ctx, load.Duration, broken)
		c.measure.Store(false)
		ended = time.Now()
		s.OnPhase(PhaseStop)
	}
	c.stop.Store(true)
	wg.Wait()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return sumExchanges(streams, results, ended.Sub(began))
}

// hangUp has a blocked read or write of the stream return.
func hangUp(st *stream) {
	// Closing would not wake a thread that is blocked in the kernel.
	_ = st.CloseRead()
	_ = st.CloseWrite()
}

func (s *Source) converse(st *stream, load Load, c *clock, x *exchange, run loop) error {
	b, err := newBlocking(st.TCPConn)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := b.timeout(s.patience); err != nil {
		return err
	}
	x.latency = newHistogram()
	if err := run(st, b, load, c, x); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("no response for %v", s.patience)
		}
		return err
	}
	_, x.tcp = inspect(st.TCPConn)
	x.verdict, err = s.finish(st, b, st.sent)
	return err
}

func (s *Source) closedLoop(st *stream, b *blocking, load Load, c *clock, x *exchange) error {
	buf := make([]byte, load.Size)
	for !c.stop.Load() {
		measured := c.measure.Load()
		start := time.Now()
		if _, err := b.Write(s.pattern.at(st.header.stream, st.sent, load.Size)); err != nil {
			return err
		}
		if _, err := io.ReadFull(b, buf); err != nil {
			return cut(err)
		}
		if measured {
			record(x.latency, time.Since(start))
			x.measured++
		}
		if err := s.checkResponse(b, st, st.sent, buf); err != nil {
			return err
		}
		st.sent += int64(load.Size)
		s.Moved.Add(1)
	}
	return nil
}

// openLoop has a sender that keeps to the plan, on a thread of its own, and
// reads the responses here. A request and its response have the same number,
// and so the same planned time.
func (s *Source) openLoop(st *stream, b *blocking, load Load, c *clock, x *exchange) error {
	interval := time.Duration(float64(time.Second) * float64(load.Streams) / load.Rate)
	if interval <= 0 {
		return fmt.Errorf("a rate of %g per second can't be planned", load.Rate)
	}
	x.lag = newHistogram()
	p := plan{
		// The streams share the rate: they must not send all at once.
		start:    time.Now().Add(time.Duration(st.header.stream % uint64(interval))),
		interval: interval,
	}
	sender := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread's timer slack is changed
		err := s.requests(st, b, load, c, x.lag, &p)
		if err != nil {
			hangUp(st)
		}
		sender <- err
	}()
	readErr := s.responses(st, b, load, c, x, &p)
	if readErr != nil {
		c.stop.Store(true)
		hangUp(st)
	}
	sendErr := <-sender
	st.sent = p.total.Load() * int64(load.Size)
	if readErr != nil {
		return readErr // the sender's failed for the same reason, or because of this one
	}
	return sendErr
}

// plan says when each request is due.
type plan struct {
	start    time.Time
	interval time.Duration
	// total is how many requests there are in the end, 0 while that is not
	// known. It is set before the last one is sent, so whoever has its response
	// sees it.
	total atomic.Int64
}

func (p *plan) due(n int64) time.Time { return p.start.Add(time.Duration(n) * p.interval) }

func (s *Source) requests(st *stream, b *blocking, load Load, c *clock, lag *hdrhistogram.Histogram, p *plan) error {
	for n := int64(0); p.total.Load() == 0; n++ {
		sleepUntil(p.due(n))
		if c.measure.Load() {
			record(lag, time.Since(p.due(n)))
		}
		if c.stop.Load() {
			p.total.Store(n + 1)
		}
		if _, err := b.Write(s.pattern.at(st.header.stream, n*int64(load.Size), load.Size)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Source) responses(st *stream, b *blocking, load Load, c *clock, x *exchange, p *plan) error {
	buf := make([]byte, load.Size)
	for n := int64(0); p.total.Load() == 0 || n < p.total.Load(); n++ {
		measured := c.measure.Load()
		if _, err := io.ReadFull(b, buf); err != nil {
			return cut(err)
		}
		if measured {
			record(x.latency, time.Since(p.due(n)))
			x.measured++
		}
		if err := s.checkResponse(b, st, n*int64(load.Size), buf); err != nil {
			return err
		}
		s.Moved.Add(1)
	}
	return nil
}

// cut says what the end of the stream means where a response was due.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the connection ended before its response")
	}
	return err
}

func sumExchanges(streams []*stream, results []exchange, took time.Duration) (*Outcome, error) {
	latency, lag := newHistogram(), newHistogram()
	var out Outcome
	var measured int64
	for i := range results {
		x := &results[i]
		if x.err != nil {
			return nil, fmt.Errorf("stream %d of %d: %w", i+1, len(results), x.err)
		}
		latency.Merge(x.latency)
		if x.lag != nil {
			lag.Merge(x.lag)
		}
		measured += x.measured
		out.Sent += streams[i].sent
		out.Received += x.verdict.Received
		out.TCP.Retransmits += x.tcp.Retransmits + x.verdict.TCP.Retransmits
		out.TCP.RTTUs += x.tcp.RTTUs / float64(len(results))
		out.TCP.Cwnd += x.tcp.Cwnd
	}
	if measured == 0 {
		return nil, errors.New("no exchange was completed within the measured time")
	}
	out.OpsPerS = float64(measured) / took.Seconds()
	var err error
	if out.Latency, err = encode(latency); err != nil {
		return nil, err
	}
	if lag.TotalCount() > 0 {
		out.ScheduleLag, err = encode(lag)
	}
	return &out, err
}
