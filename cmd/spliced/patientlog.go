package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"sync"
	"time"
)

const (
	// logQueue is how many lines wait for their reader before the log does.
	logQueue = 256
	// logPatience is how long a process that is to end waits for whoever reads
	// its log, each time.
	logPatience = time.Second
)

var errLogStuck = errors.New("write the log: nobody reads it")

// A patientLog writes lines in the order they come, and has its user wait while
// nobody reads them, but no longer once the process is to end: a pipe that is
// full must not keep it.
type patientLog struct {
	to    io.Writer
	lines chan []byte

	leave   func()        // the process is to end
	leaving chan struct{} // closed by leave
	closing chan struct{}
	ended   chan struct{} // all lines were written

	mu    sync.Mutex // of Write
	stuck bool       // lines are dropped until there is room
}

// newPatientLog is to be closed by its user.
func newPatientLog(to io.Writer) *patientLog {
	l := &patientLog{
		to: to, lines: make(chan []byte, logQueue),
		leaving: make(chan struct{}), closing: make(chan struct{}), ended: make(chan struct{}),
	}
	l.leave = sync.OnceFunc(func() { close(l.leaving) })
	go l.run()
	return l
}

// run is gone after Close, unless it hangs in a write: then the end of the process
// is all that helps.
func (l *patientLog) run() {
	defer close(l.ended)
	for {
		select {
		case line := <-l.lines:
			_, _ = l.to.Write(line) // a reader that is gone is none of a connection's business
			continue
		default:
		}
		select {
		case line := <-l.lines:
			_, _ = l.to.Write(line)
		case <-l.closing:
			if len(l.lines) == 0 {
				return
			}
		}
	}
}

func (l *patientLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := bytes.Clone(b)
	select {
	case l.lines <- line:
		l.stuck = false
		return len(b), nil
	default:
	}
	select {
	case l.lines <- line:
		return len(b), nil
	case <-l.leaving:
	}
	if l.stuck {
		return 0, errLogStuck
	}
	timer := time.NewTimer(logPatience)
	defer timer.Stop()
	select {
	case l.lines <- line:
		return len(b), nil
	case <-timer.C:
		l.stuck = true
		return 0, errLogStuck
	}
}

// leaveAt calls leave at the first of sig, whatever the process waits for then,
// until stop is called.
func (l *patientLog) leaveAt(ctx context.Context, sig ...os.Signal) (stop func()) {
	ctx, stop = signal.NotifyContext(ctx, sig...)
	context.AfterFunc(ctx, l.leave)
	return stop
}

// Close waits for what is still to be written as long as somebody reads.
func (l *patientLog) Close() {
	l.leave()
	close(l.closing)
	timer := time.NewTimer(logPatience)
	defer timer.Stop()
	select {
	case <-l.ended:
	case <-timer.C:
	}
}
