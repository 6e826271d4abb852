package transfer

import (
	"errors"
	"io"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/pipe"
	"github.com/spliced-io/spliced/internal/sys"
)

// teeKernel is what the kernel is asked with; nil is an end that is to be used
// by its methods.
type teeKernel struct {
	src  *end
	dst  [2]*end
	wake waker
	pool pipe.Pool
}

// open looks at all ends.
func (t *tee) open() (side Side, index int, err error) {
	k := &t.kernel
	none := time.Time{}
	if k.src, _, err = newEnd(t.Src, func() bool { return setReadDeadline(t.Src, none) }); err != nil {
		return Source, 0, err
	}
	for i, d := range t.Dst {
		if k.dst[i], _, err = newEnd(d, func() bool { return setWriteDeadline(d, none) }); err != nil {
			return Drain, i, err
		}
	}
	t.watch = watchByDeadlines(t.Src, t.Dst[:]...)
	if err := k.wake.arm(t.watch, k.src, k.dst[0], k.dst[1]); err != nil {
		return Both, 0, err
	}
	if k.src != nil {
		t.src = k.src
	}
	for i, d := range k.dst {
		if d == nil {
			continue
		}
		t.dst[i] = d
		if k.src != nil && k.src.format == pipeFormat && k.src.id == d.id {
			return Drain, i, syscall.EINVAL // its own end would feed it for ever
		}
	}
	return Both, 0, nil
}

func (t *tee) close() {
	t.kernel.wake.close()
	t.kernel.pool.Trim()
}

// inKernel moves references: source to pipe by splice(2), pipe to second pipe
// by tee(2), pipes to drains by splice(2). False: the source can't be spliced,
// nothing is lost, and the rest is to be copied.
func (t *tee) inKernel() (done bool) {
	k := &t.kernel
	src := k.src
	if src == nil || src.format == socketFormat && src.blocking {
		return false
	}
	var pipes [2]*pipe.Pipe
	defer func() {
		for _, p := range pipes {
			if p != nil {
				k.pool.Put(p)
			}
		}
	}()
	for !t.cutShort() {
		if pipes[0] == nil {
			if err := src.wait(); err != nil {
				t.fail(Source, 0, err)
				return true
			}
			if pipes[0], pipes[1] = k.pool.Get(), k.pool.Get(); pipes[0] == nil || pipes[1] == nil {
				return false
			}
		}
		n, err := src.reading(func(from int) (int, error) { return spliceSeen(from, pipes[0].W, spliceChunk) })
		switch {
		case err == errBlind:
			return false
		case err != nil:
			if _, refused := refusal(err); refused {
				return false
			}
			t.fail(Source, 0, err)
			return true
		case n == 0 && src.format == deviceFormat:
			return true // asking a terminal again would need a second ^D
		case n == 0:
			// A socket whose bytes splice(2) does not see says the same as
			// one that has ended: read(2) tells them apart.
			return false
		}
		if pipes[0].Held = n; !t.deliver(pipes[0], pipes[1]) {
			return true
		}
	}
	return true
}

// deliver brings what the first pipe holds to both drains, through the second,
// which is empty before and after.
func (t *tee) deliver(first, second *pipe.Pipe) bool {
	for first.Held > 0 {
		// The second pipe has as many slots: tee(2) takes all, or a part if it
		// was granted fewer.
		m, err := sys.Tee(first.R, second.W, first.Held)
		if err == nil && m == 0 {
			err = syscall.EIO // never spin on it
		}
		if err != nil {
			t.fail(Both, 0, err)
			t.keepBoth(first)
			return false
		}
		second.Held = m
		ok := t.pump(0, first, m)
		if ok = t.pump(1, second, m) && ok; !ok {
			t.keepBoth(first)
			return false
		}
	}
	return true
}

// pump moves n bytes of a pipe to a drain. What it does not take is kept.
func (t *tee) pump(i int, p *pipe.Pipe, n int) bool {
	dst := t.kernel.dst[i]
	spliced := dst != nil && !dst.appends && !(dst.format == socketFormat && dst.blocking)
	for n > 0 && spliced {
		m, err := dst.writing(func(to int) (int, error) { return sys.Splice(p.R, to, n) })
		if err == nil && m == 0 {
			err = syscall.EIO // the account of the pipe is wrong: never spin on it
		}
		if err != nil {
			if _, refused := refusal(err); refused {
				break // this drain is written to
			}
			t.fail(Drain, i, err)
			t.keepPart(i, p, n)
			return false
		}
		t.res.Ends[i].Bytes += int64(m)
		t.res.Ends[i].InKernel += int64(m)
		p.Held -= m
		n -= m
	}
	if n == 0 {
		return true
	}
	b, err := takeOut(p, n)
	ok := t.write(i, b)
	if err != nil {
		t.fail(Both, 0, err)
		ok = false
	}
	return ok
}

func (t *tee) keepPart(i int, p *pipe.Pipe, n int) {
	b, err := takeOut(p, n)
	t.keep(i, b)
	if err != nil {
		t.res.Err = errors.Join(t.res.Err, err)
	}
}

// keepBoth keeps what neither drain was given.
func (t *tee) keepBoth(p *pipe.Pipe) {
	b, err := takeOut(p, p.Held)
	t.keep(0, b)
	t.keep(1, b)
	if err != nil {
		t.res.Err = errors.Join(t.res.Err, err)
	}
}

// takeOut reads n bytes out of a pipe, which holds them.
func takeOut(p *pipe.Pipe, n int) ([]byte, error) {
	b := make([]byte, n)
	got := 0
	for got < n {
		m, err := sys.Read(p.R, b[got:])
		if err == nil && m == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return b[:got], err
		}
		got += m
	}
	p.Held -= n
	return b, nil
}
