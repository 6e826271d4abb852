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
	stop  atomic.Bool
	abort atomic.Bool // also what is planned is off

	// The measured time is between these two, in ns after base; both are 0
	// until that is known. An open loop measures what is planned for it, a
	// closed one each exchange that has a part in it.
	base     time.Time
	from, to atomic.Int64
}

// begin opens the measured time a moment from now, so that nobody is past its
// beginning who does not know of it.
func (c *clock) begin(d time.Duration) {
	const moment = time.Millisecond
	from := time.Since(c.base) + moment
	c.to.Store(int64(from + d))
	c.from.Store(int64(from))
}

// planned tells whether what is due then is measured.
func (c *clock) planned(due time.Time) bool {
	at, from := int64(due.Sub(c.base)), c.from.Load()
	return from != 0 && at >= from && at < c.to.Load()
}

// touches tells whether an exchange had a part in the measured time. One that
// was under way when it began counts too: it may be the one that everybody
// waited for.
func (c *clock) touches(start, end time.Time) bool {
	from := c.from.Load()
	return from != 0 && int64(end.Sub(c.base)) >= from && int64(start.Sub(c.base)) < c.to.Load()
}

// over is when the last planned time that is measured is over; false while
// that is not known.
func (c *clock) over() (time.Time, bool) {
	if c.from.Load() == 0 {
		return time.Time{}, false
	}
	return c.base.Add(time.Duration(c.to.Load())), true
}

// exchange is what one stream of a request/response load ended with.
type exchange struct {
	err      error
	latency  *hdrhistogram.Histogram
	lag      *hdrhistogram.Histogram // nil in a closed loop
	verdict  verdict
	tcp      transport
	measured int64
	first    time.Time // when the first measured request of a closed loop was sent
	last     time.Time // when the last measured response came
}

// count records one exchange of a closed loop if it had a part in the measured
// time.
func (x *exchange) count(c *clock, start, end time.Time, latency time.Duration) {
	if !c.touches(start, end) {
		return
	}
	record(x.latency, latency)
	if x.measured == 0 {
		x.first = start
	}
	x.measured++
	x.last = end
}

// rate is per second of the time that the exchanges of a closed loop took,
// which begins a little before the measured time and ends a little after it.
func (x *exchange) rate() float64 {
	if x.measured == 0 {
		return 0
	}
	return float64(x.measured) / x.last.Sub(x.first).Seconds()
}

// rr sends a request, waits for the response, and sends the next.
func (s *Source) rr(ctx context.Context, load Load) (*Outcome, error) {
	return s.exchanges(ctx, load, s.closedLoop)
}

// rrOpen sends requests at their planned times, whatever the responses do.
func (s *Source) rrOpen(ctx context.Context, load Load) (*Outcome, error) {
	return s.exchanges(ctx, load, s.openLoop)
}

// loop exchanges messages until the clock says stop. The stream's first
// exchange is behind it.
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
	c := clock{base: time.Now()}
	var wg sync.WaitGroup
	broken := make(chan struct{}, len(streams))
	started := newStart(len(streams), s.settle())
	for i, st := range streams {
		wg.Go(func() {
			results[i].err = s.converse(st, load, &c, &results[i], run, started)
			if results[i].err != nil {
				broken <- struct{}{}
			}
		})
	}
	awaited := started.await(ctx, broken, s.patience)
	late := started.late()
	if awaited && wait(ctx, load.Warmup, broken) {
		s.OnPhase(PhaseMeasure)
		c.begin(load.Duration)
		c.abort.Store(!wait(ctx, load.Duration, broken))
		s.OnPhase(PhaseStop)
	} else {
		c.abort.Store(true)
	}
	c.stop.Store(true)
	wg.Wait()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	out, err := sumExchanges(streams, results, &c)
	if err == nil {
		out.noteLate(late, len(streams))
	}
	return out, err
}

// hangUp has a blocked read or write of the stream return.
func hangUp(st *stream) {
	// Closing would not wake a thread that is blocked in the kernel.
	_ = st.CloseRead()
	_ = st.CloseWrite()
}

func (s *Source) converse(st *stream, load Load, c *clock, x *exchange, run loop, started *start) error {
	b, err := newBlocking(st.TCPConn)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := b.timeout(s.patience); err != nil {
		return err
	}
	x.latency = newHistogram()
	err = s.exchange(st, b, load.Size)
	if err == nil {
		started.begin()
		err = run(st, b, load, c, x)
	}
	if err != nil {
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
		start := time.Now()
		if _, err := b.Write(s.pattern.at(st.header.stream, st.sent, load.Size)); err != nil {
			return err
		}
		if _, err := io.ReadFull(b, buf); err != nil {
			return cut(err)
		}
		end := time.Now()
		x.count(c, start, end, end.Sub(start))
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
		c.abort.Store(true)
		hangUp(st)
	}
	sendErr := <-sender
	st.sent += p.total.Load() * int64(load.Size)
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

// sleepUntil is [sleepUntil], but not for long after the plan is off.
func (c *clock) sleepUntil(due time.Time) {
	const nap = 50 * time.Millisecond
	for !c.abort.Load() {
		if time.Until(due) <= nap {
			sleepUntil(due)
			return
		}
		sleepUntil(time.Now().Add(nap))
	}
}

// requests sends them all: those too that a slow path has kept it from sending
// until the measured time is over. One more tells the reader of the end.
func (s *Source) requests(st *stream, b *blocking, load Load, c *clock, lag *hdrhistogram.Histogram, p *plan) error {
	for n := int64(0); p.total.Load() == 0; n++ {
		due := p.due(n)
		c.sleepUntil(due)
		if c.planned(due) {
			record(lag, time.Since(due))
		}
		if over, known := c.over(); known && !due.Before(over) || c.abort.Load() {
			p.total.Store(n + 1)
		}
		if _, err := b.Write(s.pattern.at(st.header.stream, st.sent+n*int64(load.Size), load.Size)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Source) responses(st *stream, b *blocking, load Load, c *clock, x *exchange, p *plan) error {
	buf := make([]byte, load.Size)
	for n := int64(0); p.total.Load() == 0 || n < p.total.Load(); n++ {
		if _, err := io.ReadFull(b, buf); err != nil {
			return cut(err)
		}
		now, due := time.Now(), p.due(n)
		if over, known := c.over(); known && due.Before(over) && now.After(over.Add(s.patience)) {
			return s.overrun(due, over)
		}
		// Whenever it has come: what is late counts most.
		if c.planned(due) {
			record(x.latency, now.Sub(due))
			x.measured++
			x.last = now
		}
		if err := s.checkResponse(b, st, st.sent+n*int64(load.Size), buf); err != nil {
			return err
		}
		s.Moved.Add(1)
	}
	return nil
}

// overrun says that the path can't carry the rate.
func (s *Source) overrun(due, over time.Time) error {
	return fmt.Errorf("the path does not keep up with the rate: %v after the end it answers what was due %v before it",
		s.patience, over.Sub(due).Round(time.Millisecond))
}

// cut says what the end of the stream means where a response was due.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the connection ended before its response")
	}
	return err
}

func sumExchanges(streams []*stream, results []exchange, c *clock) (*Outcome, error) {
	latency, lag := newHistogram(), newHistogram()
	var out Outcome
	var planned int64 // of open loops
	ended, _ := c.over()
	for i := range results {
		x := &results[i]
		if x.err != nil {
			return nil, fmt.Errorf("stream %d of %d: %w", i+1, len(results), x.err)
		}
		latency.Merge(x.latency)
		switch {
		case x.lag != nil:
			lag.Merge(x.lag)
			planned += x.measured
			if x.last.After(ended) {
				ended = x.last // a late response belongs to the time that it took
			}
		default:
			out.OpsPerS += x.rate()
		}
		out.Sent += streams[i].sent
		out.Received += x.verdict.Received
		out.TCP.Retransmits += x.tcp.Retransmits + x.verdict.TCP.Retransmits
		out.TCP.RTTUs += x.tcp.RTTUs / float64(len(results))
		out.TCP.Cwnd += x.tcp.Cwnd
	}
	if planned > 0 {
		out.OpsPerS = float64(planned) / ended.Sub(c.base.Add(time.Duration(c.from.Load()))).Seconds()
	}
	if latency.TotalCount() == 0 {
		return nil, fmt.Errorf("no exchange was completed %w", errOutside)
	}
	var err error
	if out.Latency, err = encode(latency); err != nil {
		return nil, err
	}
	if lag.TotalCount() > 0 {
		out.ScheduleLag, err = encode(lag)
	}
	return &out, err
}
