package portable

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spliced-io/spliced/internal/engine"
)

const (
	small = 1 << 10  // bytes of the buffer that waits
	large = 32 << 10 // bytes of the borrowed one
)

var buffers = sync.Pool{New: func() any { return new([large]byte) }}

// A direction carries bytes from src to dst. Its goroutine owns it; the atomics
// are for anybody.
type direction struct {
	session  *Session
	src, dst *side
	first    []byte // prefetched
	max      int64  // 0 is none
	brake    *engine.Brake
	wake     chan struct{} // ends a wait for bandwidth

	bytes atomic.Int64
	state atomic.Uint32         // engine.Reason
	cut   atomic.Pointer[cause] // set by the owner before it interrupts

	ready time.Time // nothing is read before, for want of bandwidth
	small [small]byte
	large *[large]byte
	outcome
}

// An outcome is how a direction ended: its goroutine's until it has reported.
type outcome struct {
	cause
	undelivered []byte
}

// A cause is a reason and the error behind it.
type cause struct {
	reason engine.Reason
	err    error
}

func (d *direction) stats() engine.DirectionStats {
	return engine.DirectionStats{
		Bytes:  d.bytes.Load(),
		Engine: engine.Copy, Why: d.session.spec.Why,
		Reason: engine.Reason(d.state.Load()),
	}
}

func (d *direction) end() engine.End {
	return engine.End{
		Bytes: d.bytes.Load(), Reason: d.reason, Err: d.err,
		Undelivered: d.undelivered,
	}
}

// run carries the direction to its end and reports to the owner.
func (d *direction) run() {
	d.outcome = d.carry()
	d.giveBack()
	d.state.Store(uint32(d.reason))
	d.session.ended <- d
}

func (d *direction) carry() outcome {
	if len(d.first) > 0 {
		if o, over := d.deliver(d.first[:min(int64(len(d.first)), d.left())]); over {
			o.undelivered = bytes.Clone(d.first[d.bytes.Load():])
			return o
		}
		if n := d.bytes.Load(); n < int64(len(d.first)) {
			return outcome{cause{reason: engine.Max}, bytes.Clone(d.first[n:])}
		}
	}
	idle := 0
	for {
		d.await()
		if d.left() == 0 {
			return outcome{cause: cause{reason: engine.Max}}
		}
		if c := d.cut.Load(); c != nil {
			return outcome{cause: *c}
		}
		buf := d.buffer()
		n, err := d.src.conn.Read(buf[:min(int64(len(buf)), d.left())])
		if n > 0 {
			idle = 0
			d.spend(n)
			if o, over := d.deliver(buf[:n]); over {
				return o
			}
			d.fit(n)
		} else if err == nil {
			if idle++; idle == 100 {
				err = io.ErrNoProgress
			}
		}
		if err != nil {
			return d.sourceEnded(err)
		}
	}
}

// spend notes that n bytes of bandwidth are used up. What was read is delivered
// before anybody waits for more.
func (d *direction) spend(n int) {
	if d.brake != nil {
		d.ready = time.Now().Add(d.brake.Spend(n))
	}
}

// await waits until there is bandwidth again, or the direction is cut.
func (d *direction) await() {
	wait := time.Until(d.ready)
	if d.brake == nil || wait <= 0 {
		return
	}
	d.session.brakedFor(wait)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-d.wake: // its cut says the rest
	}
}

// stopReading interrupts a direction that has been cut.
func (d *direction) stopReading() {
	d.src.interruptRead()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// left is how many bytes may still be delivered, and so be read.
func (d *direction) left() int64 {
	if d.max == 0 {
		return math.MaxInt64
	}
	return d.max - d.bytes.Load()
}

// deliver writes p. When over is true it could not write all of it, and what is
// left is in the outcome.
func (d *direction) deliver(p []byte) (o outcome, over bool) {
	n, err := d.dst.conn.Write(p)
	if n > 0 {
		d.bytes.Add(int64(n))
		d.session.moved()
	}
	if n == len(p) {
		return o, false // an error with it comes again
	}
	if err == nil {
		err = io.ErrShortWrite
	}
	o.undelivered = bytes.Clone(p[n:])
	if c := d.cut.Load(); c != nil {
		o.cause = *c
		return o, true
	}
	d.dst.fail(err)
	o.cause = failed(engine.ResetByDrain, err)
	return o, true
}

// sourceEnded: everything that was read is delivered.
func (d *direction) sourceEnded(err error) outcome {
	if c := d.cut.Load(); c != nil && !errors.Is(err, io.EOF) {
		return outcome{cause: *c}
	}
	if errors.Is(err, io.EOF) {
		err = d.src.failure()
		if c, ok := d.src.transport().(*net.TCPConn); err == nil && ok && !d.src.finned.Load() {
			// A write may have taken the error of a RST with it; then the end
			// looks like a clean one.
			err = vanished(c)
		}
	}
	if err != nil {
		d.src.fail(err)
		return outcome{cause: failed(engine.ResetBySource, d.src.failure())}
	}
	if err := d.dst.closeWrite(); err != nil {
		if c := d.cut.Load(); c != nil {
			return outcome{cause: *c}
		}
		d.dst.fail(err)
		return outcome{cause: failed(engine.ResetByDrain, err)}
	}
	return outcome{cause: cause{reason: engine.EOF}}
}

// failed is the cause r if err says that the peer, or the way to it, is gone,
// and a failure of this machine otherwise.
func failed(r engine.Reason, err error) cause {
	if !isBroken(err) {
		r = engine.Failed
	}
	return cause{r, err}
}

func (d *direction) buffer() []byte {
	if d.large != nil {
		return d.large[:]
	}
	return d.small[:]
}

// fit chooses the next read's buffer by what this one got.
func (d *direction) fit(n int) {
	switch {
	case n < small:
		d.giveBack()
	case d.large == nil:
		d.large = buffers.Get().(*[large]byte)
	}
}

func (d *direction) giveBack() {
	if d.large != nil {
		buffers.Put(d.large)
		d.large = nil
	}
}
