package netbench

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// joiners is how many pairs are made at a time.
const joiners = 32

// idle joins pairs with one exchange each, leaves them alone for the load's
// time, and then sees whether each still works.
func (s *Source) idle(ctx context.Context, load Load) (*Outcome, error) {
	streams := make([]*stream, load.Pairs)
	defer func() {
		for _, st := range streams {
			if st != nil {
				st.Close()
			}
		}
	}()
	s.OnPhase(PhaseBegin)
	err := inParallel(ctx, load.Pairs, func(ctx context.Context, i int) (err error) {
		if streams[i], err = s.dial(ctx, load, i, header{kind: kindHold, size: load.Size}); err != nil {
			return err
		}
		s.Moved.Add(1)
		return s.join(streams[i], load.Size)
	})
	if err != nil {
		return nil, err
	}
	s.OnPhase(PhaseJoined)
	wait(ctx, load.Duration, nil)
	s.OnPhase(PhaseRelease)
	err = inParallel(ctx, load.Pairs, func(_ context.Context, i int) error {
		if err := streams[i].SetDeadline(time.Now().Add(s.patience)); err != nil {
			return err
		}
		_, err := s.finish(streams[i], streams[i], streams[i].sent)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Outcome{}, nil
}

func (s *Source) join(st *stream, size int) error {
	if err := st.SetDeadline(time.Now().Add(s.patience)); err != nil {
		return err
	}
	if err := s.exchange(st, st, size); err != nil {
		return err
	}
	return st.SetDeadline(time.Time{})
}

// exchange sends one message through rw, which is the stream or a view of it,
// and wants the answer.
func (s *Source) exchange(st *stream, rw io.ReadWriter, size int) error {
	if _, err := rw.Write(s.pattern.at(st.header.stream, st.sent, size)); err != nil {
		return err
	}
	buf := make([]byte, size)
	if _, err := io.ReadFull(rw, buf); err != nil {
		return cut(err)
	}
	if err := s.checkResponse(rw, st, st.sent, buf); err != nil {
		return err
	}
	st.sent += int64(size)
	return nil
}

// inParallel calls f for 0 to n-1, joiners at a time, until one fails.
func inParallel(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, joiners) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := f(ctx, i); err != nil {
					cancel(fmt.Errorf("pair %d of %d: %w", i+1, n, err))
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
