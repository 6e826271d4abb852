package netbench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// stalledPerBusy is how many readers stall for each busy stream.
const stalledPerBusy = 4

// mixed measures busy streams alone, and then beside streams whose reader has
// stalled. Each takes half of the time. In the end the stalled readers go on
// reading, and must find every byte.
func (s *Source) mixed(ctx context.Context, load Load) (*Outcome, error) {
	half := load
	half.Duration /= 2
	quiet := s.quiet()
	alone, err := quiet.bulk(ctx, half, false)
	if err != nil {
		return nil, fmt.Errorf("alone: %w", err)
	}
	stalled, err := s.stall(ctx, half)
	if err != nil {
		return nil, fmt.Errorf("stalled: %w", err)
	}
	out, err := s.bulk(ctx, half, false)
	held, stallErr := stalled.release(ctx)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, fmt.Errorf("beside stalled readers: %w", errors.Join(err, stallErr))
	case stallErr != nil:
		return nil, fmt.Errorf("stalled: %w", stallErr)
	}
	out.AloneBytesS, out.HeldPerStalled = alone.BytesPerS, held
	if stalled.note != "" {
		out.Notes = append(out.Notes, stalled.note)
	}
	return out, nil
}

// quiet is a source that nobody observes.
func (s *Source) quiet() *Source {
	return &Source{OnPhase: func(Phase) {}, pattern: s.pattern, patience: s.patience}
}

// stalling is streams whose reader does not read until they are released.
type stalling struct {
	source *Source
	load   Load
	id     uint64
	*pumping
	note string
}

// stall fills such streams, and returns when they take no more.
func (s *Source) stall(ctx context.Context, load Load) (*stalling, error) {
	const (
		longestSettling = 3 * time.Second
		step            = 20 * time.Millisecond
		stillFor        = 10 // steps
	)
	n := stalledPerBusy * load.Streams
	// Nothing but the release ends a stall within this time.
	limit := longestSettling + load.Warmup + load.Duration + 3*s.patience
	h := header{kind: kindStall, size: load.Size, load: rand.Uint64(), stall: limit}
	streams, err := s.dialAll(ctx, load, n, h)
	if err != nil {
		return nil, err
	}
	st := &stalling{source: s.quiet(), load: load, id: h.load}
	st.pumping = st.source.pump(ctx, load, streams, limit)
	before, still := int64(0), 0
	for end := time.Now().Add(longestSettling); still < stillFor; still++ {
		if !wait(ctx, step, st.broken) || time.Now().After(end) {
			break // who comes to the end says why
		}
		if now := st.source.Moved.Load(); now != before {
			before, still = now, 0
		}
	}
	if still < stillFor {
		st.note = fmt.Sprintf("after %v the stalled streams still took bytes, and did so while the busy ones were measured", longestSettling)
	}
	return st, nil
}

// release lets the readers go on, and waits for the end. held is how many bytes
// each stream had taken until then: what waits in the path and in the buffers
// at both ends.
func (st *stalling) release(ctx context.Context) (held float64, err error) {
	s := st.source
	held = float64(s.Moved.Load()) / float64(len(st.streams))
	control, err := s.dial(ctx, st.load, 0, header{kind: kindRelease, size: 1, load: st.id})
	if err == nil {
		defer control.Close()
		if err = control.SetDeadline(time.Now().Add(s.patience)); err == nil {
			_, err = s.finish(control, control, 0)
		}
	}
	if err != nil {
		err = fmt.Errorf("one more connection, to release the readers: %w", err)
		for _, stream := range st.streams {
			_ = stream.SetDeadline(time.Unix(1, 0)) // nobody will read
		}
	}
	_, endErr := st.end(ctx)
	return held, errors.Join(err, endErr)
}
