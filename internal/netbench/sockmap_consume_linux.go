package netbench

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/sys"
)

// sockmapConsumer takes what arrives at C2, verifies every byte, and measures.
// One goroutine runs it, locked to its thread.
type sockmapConsumer struct {
	flight  *flight
	pattern *pattern
	fd      int
	buf     []byte
	times   windowTimes
	delay   time.Duration
	limit   int64 // of what is queued, once it is known that the consumer works
	// patience is how long nothing may arrive of what was sent.
	patience time.Duration

	total int64
	first time.Time // when it began to take all
	begin *mark     // of the measured part
	end   *mark
}

// mark is what was used at a moment, and how much had been taken.
type mark struct {
	machine machineUsage
	thread  time.Duration
	total   int64
}

// run takes the first bytes, by which it is known that the consumer works, then
// bytes until the measured part is over, and then what is still on its way. All
// that was sent has to come, and nothing else.
func (c *sockmapConsumer) run(ctx context.Context, by taker) error {
	err := c.takeAll(ctx, by, func() (bool, error) { return c.total > 0, nil })
	var blind *blindError
	if errors.As(err, &blind) {
		// It is there: recv(2) gets it.
		c.flight.finish()
		if rest := c.takeAll(ctx, receiver(c.fd), c.complete); rest != nil {
			return rest
		}
		return fmt.Errorf("%w; recv(2) then got all of the %d bytes", blind, c.total)
	}
	if err != nil {
		return err
	}
	c.flight.open(c.limit)
	if err := pause(ctx, c.delay); err != nil {
		return err
	}
	c.first = time.Now()
	if err := c.takeAll(ctx, by, c.over); err != nil {
		return err
	}
	c.flight.finish()
	if err := c.takeAll(ctx, by, c.complete); err != nil {
		return err
	}
	return c.nothingMore()
}

// takeAll takes until enough says so.
func (c *sockmapConsumer) takeAll(ctx context.Context, by taker, enough func() (bool, error)) error {
	last := time.Now()
	for {
		if done, err := enough(); done || err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := by.take(c.buf)
		switch {
		case errors.Is(err, syscall.EAGAIN):
			if err := c.flight.failure(); err != nil {
				return err
			}
			if time.Since(last) > c.patience {
				sent, _ := c.flight.account()
				return fmt.Errorf("nothing arrived for %v: %d of %d bytes have", c.patience, c.total, sent)
			}
			if _, err := sys.WaitReadable(c.fd, lookMsec); err != nil {
				return fmt.Errorf("poll: %w", err)
			}
			continue
		case err != nil:
			return err
		case n == 0:
			return fmt.Errorf("the stream ended after %d bytes", c.total)
		}
		if err := c.pattern.check(0, c.total, c.buf[:n]); err != nil {
			return err
		}
		last = time.Now()
		c.total += int64(n)
		c.flight.consume(n)
	}
}

// over marks the begin and the end of the measured part.
func (c *sockmapConsumer) over() (done bool, err error) {
	switch {
	case c.begin == nil && time.Since(c.first) >= c.times.warmup:
		c.begin, err = c.mark()
	case c.begin != nil && time.Since(c.begin.machine.at) >= c.times.duration:
		c.end, err = c.mark()
		done = true
	}
	return done, err
}

func (c *sockmapConsumer) mark() (*mark, error) {
	thread, err := sys.ThreadUsage()
	if err != nil {
		return nil, fmt.Errorf("read the thread's processor time: %w", err)
	}
	m := &mark{thread: thread.User + thread.System, total: c.total}
	m.machine, err = takeMachine()
	return m, err
}

// complete tells whether all that was sent has come. The sender may just be
// sending its last.
func (c *sockmapConsumer) complete() (bool, error) {
	select {
	case <-c.flight.landed:
	default:
		return false, nil
	}
	sent, _ := c.flight.account()
	if c.total > sent {
		return false, fmt.Errorf("%d bytes arrived, more than the %d that were sent", c.total, sent)
	}
	return c.total == sent, nil
}

func (c *sockmapConsumer) nothingMore() error {
	if ready, err := sys.WaitReadable(c.fd, 0); err != nil || !ready {
		return err
	}
	n, err := sys.Recv(c.fd, c.buf)
	if errors.Is(err, syscall.EAGAIN) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("after all %d bytes: %w", c.total, err)
	}
	return fmt.Errorf("after all %d bytes there were %d more", c.total, n)
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
