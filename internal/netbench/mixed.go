package netbench

import (
	"context"
	"fmt"
	"sync"
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
	quiet := Source{OnPhase: func(Phase) {}, pattern: s.pattern, patience: s.patience}
	alone, err := quiet.bulk(ctx, half, false)
	if err != nil {
		return nil, fmt.Errorf("alone: %w", err)
	}

	stalled, err := s.stall(ctx, load)
	if err != nil {
		return nil, fmt.Errorf("stalled: %w", err)
	}
	out, err := s.bulk(ctx, half, false)
	stallErr := stalled()
	switch {
	case err != nil:
		return nil, fmt.Errorf("beside stalled readers: %w", err)
	case stallErr != nil:
		return nil, fmt.Errorf("stalled: %w", stallErr)
	}
	out.AloneBytesS = alone.BytesPerS
	return out, nil
}

// stall fills streams whose reader does not read until the load is over. It
// returns when they have started, and a function that waits for their end.
func (s *Source) stall(ctx context.Context, load Load) (join func() error, err error) {
	const settle = 300 * time.Millisecond
	n := stalledPerBusy * load.Streams
	pause := settle + load.Warmup + load.Duration/2
	streams, err := s.dialAll(ctx, load, n, header{kind: kindStall, size: load.Size, stall: pause})
	if err != nil {
		return nil, err
	}
	side := load
	side.Warmup, side.Duration = 0, pause
	quiet := Source{OnPhase: func(Phase) {}, pattern: s.pattern, patience: s.patience}
	var outcome error
	var wg sync.WaitGroup
	wg.Go(func() { _, outcome = quiet.pump(ctx, side, streams) })
	// Their buffers fill up meanwhile.
	wait(ctx, settle, nil)
	return func() error {
		wg.Wait()
		return outcome
	}, nil
}
