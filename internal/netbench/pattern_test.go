package netbench

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestPatternKnowsItsPlace(t *testing.T) {
	p := newPattern()
	const stream, offset, size = 12345, 7_000_003, 300 << 10
	good := bytes.Clone(p.at(stream, offset, size))
	if err := p.check(stream, offset, good); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 1, size / 2, size - 1} {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		var mismatch *MismatchError
		if err := p.check(stream, offset, bad); !errors.As(err, &mismatch) || mismatch.Offset != offset+int64(i) ||
			mismatch.Got != bad[i] || mismatch.Want != good[i] {
			t.Errorf("a flipped bit at %d: %v", i, err)
		}
	}
	// What buffers are usually made of, left out or repeated.
	for shift := int64(1); shift <= 1<<20; shift *= 2 {
		if p.check(stream, offset+shift, good) == nil || p.check(stream, offset-shift, good) == nil {
			t.Errorf("a shift by %d is not seen", shift)
		}
	}
	if p.check(stream+1, offset, good) == nil || p.check(stream|responseBit, offset, good) == nil {
		t.Error("another stream's bytes are taken for this one's")
	}
	// A stream looks the same whatever the pieces are.
	var pieces []byte
	for n := 0; n < size; n += 1000 {
		pieces = append(pieces, p.at(stream, offset+int64(n), min(1000, size-n))...)
	}
	if !bytes.Equal(pieces, good) {
		t.Error("pieces differ from the whole")
	}
	// More than one write's worth in one piece.
	long := append(bytes.Clone(p.at(stream, 0, maxChunk)), p.at(stream, maxChunk, maxChunk)...)
	if err := p.check(stream, 0, long); err != nil {
		t.Error(err)
	}
}

func TestHeaderThereAndBack(t *testing.T) {
	want := header{
		kind: kindStall, both: true, word: true, size: 4096, stream: 1<<63 - 1, load: 1<<64 - 1,
		window: windowTimes{250 * time.Millisecond, time.Hour}, stall: time.Minute,
		streams: 1<<16 - 1, settle: 1234 * time.Millisecond,
	}
	got, err := readHeader(bytes.NewReader(want.marshal()))
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for i := range headerSize {
		b := want.marshal()
		b[i] ^= 1
		if got, err := readHeader(bytes.NewReader(b)); !errors.Is(err, errNoHeader) {
			t.Errorf("byte %d changed: %+v, %v", i, got, err)
		}
	}
	for _, bad := range []header{
		{kind: 0, size: 1},
		{kind: kindRelease + 1, size: 1},
		{kind: kindBulk, size: 0},
		{kind: kindBulk, size: maxChunk + 1},
		{kind: kindBulk, size: 1, window: windowTimes{warmup: -1}},
		{kind: kindBulk, size: 1, window: windowTimes{duration: -1}},
		{kind: kindBulk, size: 1, stall: 5 * time.Hour},
	} {
		if got, err := readHeader(bytes.NewReader(bad.marshal())); !errors.Is(err, errNoHeader) {
			t.Errorf("%+v is taken as %+v, %v", bad, got, err)
		}
	}
}

// Who has a source and a sink of two versions is told so.
func TestVersionsThatDiffer(t *testing.T) {
	b := header{kind: kindBulk, size: 1}.marshal()
	b[len(headerMagic)-1] = '2'
	if got, err := readHeader(bytes.NewReader(b)); !errors.Is(err, errNoHeader) || !strings.Contains(err.Error(), "splbnch2") {
		t.Errorf("the header is taken as %+v, %v", got, err)
	}
	b, err := verdict{}.marshal()
	if err != nil {
		t.Fatal(err)
	}
	b[len(verdictMagic)-1] = '2'
	if got, err := parseVerdict(b); err == nil || !strings.Contains(err.Error(), "splvrdt2") {
		t.Errorf("the verdict is taken as %+v, %v", got, err)
	}
}

func TestVerdictThereAndBack(t *testing.T) {
	want := verdict{Received: 5, Sent: 6, Error: strings.Repeat("long", 1000), Rcvbuf: 7}
	b, err := want.marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseVerdict(b)
	if err != nil || got.Received != 5 || got.Sent != 6 || got.Rcvbuf != 7 || !strings.HasPrefix(want.Error, got.Error) || got.Error == "" {
		t.Errorf("got %+v, %v", got, err)
	}
	for i := range b { // what is only padding, too
		bad := bytes.Clone(b)
		bad[i] ^= 1
		if got, err := parseVerdict(bad); err == nil {
			t.Errorf("byte %d changed: %+v", i, got)
		}
	}
}

func FuzzHeader(f *testing.F) {
	f.Add(header{kind: kindBulk, size: 1}.marshal())
	f.Add(header{kind: kindStall, both: true, size: maxChunk, stream: 1 << 62, window: windowTimes{time.Second, time.Second}}.marshal())
	f.Add([]byte(headerMagic))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := readHeader(bytes.NewReader(b))
		if err != nil {
			return
		}
		if h.size < 1 || h.size > maxChunk || h.window.warmup < 0 || h.window.duration < 0 || h.stall < 0 {
			t.Errorf("accepted %+v", h)
		}
		if again, err := readHeader(bytes.NewReader(h.marshal())); err != nil || again != h {
			t.Errorf("%+v became %+v, %v", h, again, err)
		}
	})
}

func FuzzVerdict(f *testing.F) {
	b, err := verdict{Received: 1, Error: "x"}.marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(make([]byte, verdictSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := parseVerdict(b)
		if err != nil {
			return
		}
		if _, err := v.marshal(); err != nil {
			t.Errorf("%+v can't be sent: %v", v, err)
		}
	})
}
