//go:build linux

package conformance

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
)

// period is the length after which a pattern repeats: a prime, so that a
// mistake of a power of two, a page or a segment never meets equal bytes.
const period = 1<<20 - 3

// A pattern is an endless stream of bytes, each a function of its position.
type pattern struct {
	table []byte
	start int64
}

// table is what all patterns consist of: always the same, made at the first
// use.
var table = sync.OnceValue(func() []byte {
	src := rand.New(rand.NewPCG(0x73706c69, 0x63656421))
	table := make([]byte, period)
	for i := range table {
		table[i] = byte(src.Uint32())
	}
	return table
})

// newPattern returns the pattern of a direction. Two starts never agree over
// more than a few bytes.
func newPattern(start int64) pattern { return pattern{table(), start} }

// at returns bytes of the pattern from position off on: at least one, at most
// n. They must not be changed.
func (p pattern) at(off int64, n int64) []byte {
	from := (p.start + off) % period
	return p.table[from:min(from+n, period)]
}

// bytes returns a copy of n bytes from position off on.
func (p pattern) bytes(off, n int64) []byte {
	b := make([]byte, 0, n)
	for int64(len(b)) < n {
		b = append(b, p.at(off+int64(len(b)), n-int64(len(b)))...)
	}
	return b
}

// write writes n bytes from position off on, at most chunk in one call.
func (p pattern) write(w io.Writer, off, n, chunk int64) (written int64, err error) {
	for written < n {
		m, err := w.Write(p.at(off+written, min(chunk, n-written)))
		written += int64(m)
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// check compares got with the pattern from position off on.
func (p pattern) check(got []byte, off int64) error {
	for len(got) > 0 {
		want := p.at(off, int64(len(got)))
		if !bytes.Equal(got[:len(want)], want) {
			for i := range want {
				if got[i] != want[i] {
					return fmt.Errorf("wrong byte at position %d: %#02x, want %#02x; %s",
						off+int64(i), got[i], want[i], p.find(got[i:]))
				}
			}
		}
		got, off = got[len(want):], off+int64(len(want))
	}
	return nil
}

// find says where in the pattern the bytes come from, as a help for whoever
// has to find out how they came here.
func (p pattern) find(got []byte) string {
	if len(got) < 8 {
		return "too few bytes to say where they belong"
	}
	if i := bytes.Index(p.table, got[:min(len(got), 32)]); i >= 0 {
		return fmt.Sprintf("these bytes belong to position %d of this direction, give or take a multiple of %d",
			(int64(i)-p.start+period)%period, period)
	}
	return "these bytes are not of the pattern"
}

// read reads exactly n bytes and compares them with the pattern from off on.
// It returns how many it has read, all of them right if err is nil.
func (p pattern) read(r io.Reader, off, n int64) (done int64, err error) {
	buf := make([]byte, min(n, 256<<10))
	for done < n {
		m, err := r.Read(buf[:min(int64(len(buf)), n-done)])
		if bad := p.check(buf[:m], off+done); bad != nil {
			return done, bad
		}
		done += int64(m)
		if err != nil && done < n {
			return done, err
		}
	}
	return done, nil
}
