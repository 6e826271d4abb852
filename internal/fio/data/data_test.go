package data

import (
	"bytes"
	"errors"
	"testing"

	"github.com/spliced-io/spliced/internal/fio/job"
	"pgregory.net/rapid"
)

// Check values of the sums: "123456789" in the catalogue of parametrised CRC
// algorithms, the test vectors of xxHash.
func TestSums(t *testing.T) {
	digits := []byte("123456789")
	for name, want := range map[string][]byte{
		"crc16": {0x3d, 0xbb}, // ARC: 0xbb3d
		"crc7":  {0x75},       // MMC
	} {
		if got := kindOf(name).sum(nil, digits); !bytes.Equal(got, want) {
			t.Errorf("%s of the digits is %x, want %x", name, got, want)
		}
	}
	if got := crc32c(digits); got != ^uint32(0xe3069283) {
		t.Errorf("crc32c is %x", got)
	}
	// Bit-reversed data and result, register 0: the IEEE polynomial again.
	if got := kindOf("crc32").sum(nil, []byte{1}); !bytes.Equal(got, []byte{0xb7, 0x1d, 0xc1, 0x04}) {
		t.Errorf("crc32 of 01 is %x, want the polynomial 04c11db7", got)
	}
	if got := xxh32(nil, 0); got != 0x02cc5d05 {
		t.Errorf("xxh32 of nothing is %x", got)
	}
	if got := xxh32([]byte("Nobody inspects the spammish repetition"), 0); got != 0xe2293b2f {
		t.Errorf("xxh32 is %x", got)
	}
}

// What Fill makes, Check accepts; any changed byte it covers is found, in the
// right interval.
func TestCheckFindsAnyChangedByte(t *testing.T) {
	kinds := []string{"md5", "crc64", "crc32", "crc32c", "crc16", "sha1", "sha256", "sha512", "sha3-256", "xxhash", "pattern", "pattern_hdr"}
	rapid.Check(t, func(t *rapid.T) {
		o := job.Options{
			Verify: rapid.SampledFrom(kinds).Draw(t, "kind"), VerifySequence: true, VerifyHeaderSeed: true,
			VerifyPattern: &job.Pattern{Bytes: []byte{1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0}, At: []int{3}},
		}
		interval := rapid.SampledFrom([]int{512, 1024, 4096}).Draw(t, "interval")
		o.VerifyInterval = uint64(interval)
		if rapid.Bool().Draw(t, "offset") && o.Verify != "pattern" {
			o.VerifyOffset = uint64(rapid.IntRange(168, interval-168).Draw(t, "at"))
		}
		for d := range o.BS {
			o.BS[d] = job.Span{Min: 4096, Max: 8192}
		}
		if o.Verify != "pattern" && o.Verify != "pattern_hdr" {
			o.VerifyPattern = nil
		}
		v, err := NewVerifier(&o)
		if err != nil {
			t.Fatal(err)
		}
		k := Block{Offset: 1 << 20, Seed: rapid.Uint64().Draw(t, "seed"), Number: 70_000, Now: 1e18}
		b := make([]byte, rapid.SampledFrom([]int{4096, 8192}).Draw(t, "size"))
		known := Known{Seed: true, Number: true}
		v.Fill(b, k)
		if err := v.Check(bytes.Clone(b), k, known); err != nil {
			t.Fatalf("just filled: %v", err)
		}
		at := rapid.IntRange(0, len(b)-1).Draw(t, "wrong")
		b[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
		err = v.Check(b, k, known)
		var m *Mismatch
		if !errors.As(err, &m) {
			// Bytes that nothing covers: what pads a sum in its header.
			room := v.kind.room - len(v.kind.sumOf(nil))
			in := at % interval
			start := v.offset + headerLen + v.kind.room - room
			if room > 0 && in >= start && in < start+room {
				return
			}
			t.Fatalf("byte %d of interval %d changed, not found", in, at/interval)
		}
		if want := k.Offset + uint64(at/interval*interval); m.Offset != want {
			t.Fatalf("found in the interval at %d, want %d", m.Offset, want)
		}
	})
}

func (k *kind) sumOf(b []byte) []byte {
	if k.sum == nil {
		return nil
	}
	return k.sum(nil, b)
}

func TestFillsDoNotAllocate(t *testing.T) {
	o := job.Options{Verify: "crc32c", Scramble: true, Compress: -1}
	for d := range o.BS {
		o.BS[d] = job.Span{Min: 4096, Max: 4096}
	}
	v, err := NewVerifier(&o)
	if err != nil {
		t.Fatal(err)
	}
	f := NewFiller(&o, 1)
	b := make([]byte, 4096)
	v.Fill(b, Block{})
	if n := testing.AllocsPerRun(100, func() {
		v.Fill(b, Block{Seed: 1})
		if err := v.Check(b, Block{Seed: 1}, Known{Seed: true}); err != nil {
			t.Error(err)
		}
		f.Next(b, 1, 2)
	}); n > 0 {
		t.Errorf("%v allocations a block", n)
	}
}

// fio's SHA-512 covers the ends of a block only. What this program has written
// is compared with its seed, by a job that did not write it too.
func TestSHA512OfABlockThatIsWrongInTheMiddle(t *testing.T) {
	v, err := NewVerifier(&job.Options{Verify: "sha512", VerifySequence: true, VerifyHeaderSeed: true})
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	k := Block{Offset: 4096, Seed: 7, Number: 1}
	v.Fill(b, k)
	if err := v.Check(bytes.Clone(b), k, Known{}); err != nil {
		t.Fatal(err)
	}
	for i := 500; i < 3900; i++ {
		b[i] ^= 0xff
	}
	var m *Mismatch
	if err := v.Check(b, k, Known{}); !errors.As(err, &m) || m.At != 500 {
		t.Errorf("%v, want the byte at 500", err)
	}
}
