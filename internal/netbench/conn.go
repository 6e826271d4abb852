package netbench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// conn connects, exchanges one message, and closes each direction, again and
// again.
func (s *Source) conn(ctx context.Context, load Load) (*Outcome, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := clock{base: time.Now()}
	var begun atomic.Int64 // connections, warm-up included
	results := make([]exchange, load.Streams)
	broken := make(chan struct{}, load.Streams)
	var wg sync.WaitGroup
	for i := range results {
		x := &results[i]
		x.latency = newHistogram()
		wg.Go(func() {
			for !c.stop.Load() {
				n := begun.Add(1)
				if load.MaxConns > 0 && n > int64(load.MaxConns) {
					broken <- struct{}{}
					return
				}
				start := time.Now()
				took, err := s.once(ctx, load, int(n))
				if err != nil {
					cancel(fmt.Errorf("connection %d: %w", n, err))
					broken <- struct{}{}
					return
				}
				x.count(&c, start, time.Now(), took)
				s.Moved.Add(1)
			}
		})
	}
	var took time.Duration
	if wait(ctx, load.Warmup, broken) {
		s.OnPhase(PhaseMeasure)
		began := time.Now()
		c.begin(load.Duration)
		wait(ctx, load.Duration, broken)
		took = time.Since(began)
		s.OnPhase(PhaseStop)
	}
	c.stop.Store(true)
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	latency := newHistogram()
	out := &Outcome{}
	for i := range results {
		x := &results[i]
		latency.Merge(x.latency)
		out.OpsPerS += x.rate()
	}
	if latency.TotalCount() == 0 {
		return nil, fmt.Errorf("no connection was completed %w", errOutside)
	}
	if load.MaxConns > 0 && begun.Load() > int64(load.MaxConns) {
		out.Notes = append(out.Notes, fmt.Sprintf(
			"stopped after %d connections, %.2f s: more would measure exhausted ports", load.MaxConns, took.Seconds()))
	}
	var err error
	out.Latency, err = encode(latency)
	return out, err
}

// once is one connection. The time runs from before the connect to the last
// byte of the response.
func (s *Source) once(ctx context.Context, load Load, n int) (time.Duration, error) {
	start := time.Now()
	conn, err := s.connect(ctx, load, n)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	// The last word is a packet more than what is measured: some have it, which
	// finds a proxy that takes the end of one direction for that of both.
	const everySo = 32
	h := header{kind: kindOnce, size: load.Size, stream: rand.Uint64() &^ responseBit, word: n%everySo == 1}
	if err := conn.SetDeadline(start.Add(s.patience)); err != nil {
		return 0, err
	}
	if _, err := conn.Write(append(h.marshal(), s.pattern.at(h.stream, 0, load.Size)...)); err != nil {
		return 0, err
	}
	buf := make([]byte, load.Size)
	if _, err := io.ReadFull(conn, buf); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, fmt.Errorf("no response for %v", s.patience)
		}
		return 0, cut(err)
	}
	took := time.Since(start)
	if err := s.checkResponse(conn, &stream{conn, h, 0}, 0, buf); err != nil {
		return 0, err
	}
	return took, s.endOnce(conn, h)
}

// endOnce sends the FIN, and sees that nothing but the last word and the
// sink's FIN is the answer.
func (s *Source) endOnce(conn *net.TCPConn, h header) error {
	if err := conn.CloseWrite(); err != nil {
		return fmt.Errorf("close one direction: %w", err)
	}
	rest, err := io.ReadAll(io.LimitReader(conn, verdictSize))
	if err != nil {
		return s.explain(err)
	}
	if v, err := parseVerdict(rest); err == nil && v.Error != "" {
		return fmt.Errorf("sink: %s", v.Error)
	}
	want := 0
	if h.word {
		want = lastWord
	}
	switch {
	case len(rest) < want:
		return errors.New("the connection ended without the sink's last word: the half-close was not kept, or bytes were lost")
	case len(rest) > want:
		return fmt.Errorf("source: more bytes than the %d that the sink sent", h.size+want)
	}
	if err := s.pattern.check(h.stream|responseBit, int64(h.size), rest); err != nil {
		return fmt.Errorf("source: %w", err)
	}
	return nil
}
