//go:build linux

package conformance

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// mostMemory is what a relay process may have at most, in bytes.
const mostMemory = 64 << 20

// BulkSize is what RunBulk is to carry each way, in bytes: less where the race
// detector makes it ten times as slow.
const BulkSize = 1<<30 - 7*raceShare<<27

// RunBulk carries n bytes each way at once, in chunks of random sizes, through
// a relay process. The client stalls at random. Both ends have the same
// SHA-256, and the relay stays below mostMemory.
func RunBulk(t *testing.T, e Engine, helper string, n int64) {
	t.Helper()
	p := start(t, e, true, helper, 0)
	w := p.link()
	for _, c := range []net.Conn{w.src, w.dst} {
		if err := c.SetDeadline(time.Now().Add(20 * lasting)); err != nil {
			t.Fatal(err)
		}
	}
	var sums [4][sha256.Size]byte
	var errs [4]error
	var wg sync.WaitGroup
	for i, w := range []way{w, w.back()} {
		wg.Go(func() { sums[2*i], errs[2*i] = w.pour(n) })
		wg.Go(func() { sums[2*i+1], errs[2*i+1] = w.drink(n, i == 1) })
	}
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	if sums[0] != sums[1] || sums[2] != sums[3] {
		t.Errorf("sent %x and %x, received %x and %x", sums[0], sums[2], sums[1], sums[3])
	}
	var r report
	eventually(t, "the end of the session", func() bool { r = p.ask("report"); return r.Ended == 1 })
	if r.Peak >= mostMemory && !raceDetector {
		t.Errorf("the relay took %d bytes of memory, want less than %d", r.Peak, mostMemory)
	}
	t.Logf("%d bytes each way; the relay used %v of processor time and at most %d KiB of memory", n, r.CPU, r.Peak>>10)
}

// pour sends n bytes and the FIN.
func (w way) pour(n int64) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	for at := int64(0); at < n; {
		chunk := w.at(at, min(1+rand.Int64N(1<<(1+rand.IntN(21))), n-at))
		h.Write(chunk)
		if _, err := w.src.Write(chunk); err != nil {
			return sum, fmt.Errorf("send at %d: %w", at, err)
		}
		at += int64(len(chunk))
	}
	return [sha256.Size]byte(h.Sum(nil)), closeWrite(w.src)
}

// drink receives to the end.
func (w way) drink(n int64, stalls bool) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	buf := make([]byte, 1<<20)
	var at int64
	for {
		if stalls && rand.IntN(200) == 0 {
			// Long enough for everything up to the sender to fill.
			<-time.After(time.Duration(rand.IntN(100)) * time.Millisecond)
		}
		m, err := w.dst.Read(buf[:1+rand.IntN(len(buf))])
		if bad := w.check(buf[:m], at); bad != nil {
			return sum, bad
		}
		h.Write(buf[:m])
		at += int64(m)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return sum, fmt.Errorf("receive at %d: %w", at, err)
		}
	}
	if at != n {
		return sum, fmt.Errorf("received %d of %d bytes", at, n)
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}
