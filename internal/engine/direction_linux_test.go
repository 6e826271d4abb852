package engine

import (
	"errors"
	"syscall"
	"testing"
)

// More bytes than MaxBytes, of whichever engine, are never taken for a clean
// end, nor do they make a negative length for the next read.
func TestOvershootOfMaxBytesIsAnError(t *testing.T) {
	const limit = 100
	for name, tc := range map[string]struct {
		in   int64
		stop bool
		want Reason
	}{
		"below":            {limit - 1, false, Running}, // and nothing to read
		"exact":            {limit, false, Max},
		"beyond":           {limit + 1, false, Failed},
		"beyond, stopping": {limit + 1, true, Failed},
	} {
		t.Run(name, func(t *testing.T) {
			l, s := &loop{reactor: new(Reactor)}, &Session{stopping: tc.stop}
			d := &s.dirs[0]
			d.init(&s.ends[0], &s.ends[1], limit, nil)
			d.in = tc.in
			d.out.Store(tc.in)
			if d.run(l, s) {
				t.Error("wants another turn")
			}
			if got := d.reason(); got != tc.want {
				t.Fatalf("ended by %v, %v; want %v", got, d.err, tc.want)
			}
			if failed := errors.Is(d.err, syscall.EOVERFLOW); failed != (tc.want == Failed) {
				t.Errorf("error %v", d.err)
			}
		})
	}
}

// A flow that ends by itself beyond its limit, as one of the engine wire can, is
// an error too.
func TestOvershootBeforeTheEndIsAnError(t *testing.T) {
	l, s := &loop{reactor: new(Reactor)}, new(Session)
	d := &s.dirs[0]
	d.init(&s.ends[0], &s.ends[1], 100, nil)
	d.out.Store(107)
	d.finish(l, EOF, nil)
	if d.reason() != Failed || !errors.Is(d.err, syscall.EOVERFLOW) {
		t.Errorf("ended by %v, %v", d.reason(), d.err)
	}
}
