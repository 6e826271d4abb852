package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// reloads are done one at a time, and beside everything else: what one reads may be on a disk of
// the network that does not answer any more. Then it is given up after a while, but it can't be
// ended: a thread of this process is in the kernel until the disk answers, or the process ends. No
// other one is begun until then.
type reloads struct {
	do       func(ctx context.Context) error // nothing is changed any more once ctx has ended
	patience time.Duration

	turn    chan struct{} // has a token while one is done
	waiting atomic.Bool   // one has not begun to read: it will read what there is now
	begun   time.Time     // for who has the token: of the one that was given up
	over    chan struct{} // closed by that; nil: there is none
}

const (
	// reloadPatience is how long files may take to be read.
	reloadPatience = time.Minute
	// reloadGrace is how long a reload that was given up is waited for: if it was not at a file
	// it ends at once, either way.
	reloadGrace = 250 * time.Millisecond
)

func newReloads(do func(context.Context) error) *reloads {
	return &reloads{do: do, patience: reloadPatience, turn: make(chan struct{}, 1)}
}

// run does one when its turn has come, unless ctx ends before.
func (r *reloads) run(ctx context.Context) error {
	select {
	case r.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-r.turn }()
	r.waiting.Store(false)
	select {
	case <-r.over:
		r.over = nil
	default:
		if r.over != nil {
			return fmt.Errorf("the reload of %s waits for a file yet", r.begun.Format(time.TimeOnly))
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, r.patience, fmt.Errorf("the files were not read within %v: they are waited for", r.patience))
	defer cancel()
	r.begun = time.Now()
	over, result := make(chan struct{}), make(chan error, 1)
	go func() { // until it returns, or the process ends
		defer close(over)
		result <- r.do(ctx)
	}()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-result:
		return err
	case <-time.After(reloadGrace):
	}
	r.over = over
	return context.Cause(ctx)
}

// errEnding is why something is not done any more.
var errEnding = errors.New("this process ends")

// hangUp is for SIGHUP: many at a time are one or two reloads.
func (d *daemon) hangUp() {
	if !d.reloads.waiting.Swap(true) {
		d.background.Go(func() { _ = d.reload(context.Background()) }) // says so itself
	}
}

// reload brings the file as it is now into force, or leaves everything as it
// was.
func (d *daemon) reload(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(d.ending, func() { cancel(errEnding) })()
	err := d.reloads.run(ctx)
	if err != nil {
		d.noteReload(nil, "", err)
		d.log.Error("reload refused: the old configuration stays in force", "config", d.path, "error", oneLine{err})
	}
	return err
}
