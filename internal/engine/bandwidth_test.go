package engine

import (
	"testing"
	"time"
)

func TestBandwidth(t *testing.T) {
	t.Parallel()
	b := NewBandwidth(1000)
	if wait := b.take(100); wait != 0 {
		t.Errorf("a tenth of a second's bytes: wait %v", wait)
	}
	// Since then some time has passed, which can only shorten the wait.
	if wait := b.take(100_000); wait > 100*time.Second || wait <= 0 {
		t.Errorf("the bytes of 100 s: wait %v", wait)
	}
	before := b.take(0)
	b.putBack(90_000)
	if wait := b.take(0); wait > before-90*time.Second {
		t.Errorf("the bytes of 90 s were put back: wait %v, before %v", wait, before)
	}
}

func TestBandwidthTurns(t *testing.T) {
	t.Parallel()
	for rate, want := range map[int64]int{-1: 1, 1: 1, 100: 100, 1000: 512, 100_000: 1000, 1 << 40: 64 << 10} {
		b := NewBandwidth(rate)
		if b.turn != want {
			t.Errorf("%d bytes a second: turns of %d, want %d", rate, b.turn, want)
		}
		if wait := b.take(b.turn); wait > 0 {
			t.Errorf("%d bytes a second: the first turn waits for %v", rate, wait)
		}
	}
}

func TestBrake(t *testing.T) {
	t.Parallel()
	if b := newBrake(0, nil); b != nil {
		t.Error("a brake for nothing")
	}
	shared := NewBandwidth(1 << 20)
	b := newBrake(1000, shared)
	if wait := b.Next(); wait != 0 || b.Given() != 512 {
		t.Errorf("wait %v for %d bytes", wait, b.Given())
	}
	b.Read(500)
	if wait := b.Next(); wait != 0 || b.Given() != 12 {
		t.Errorf("what is left: wait %v for %d bytes", wait, b.Given())
	}
	own, common := b.own.paid.Load(), shared.paid.Load()
	b.Rest()
	if b.Given() != 0 || b.own.paid.Load() >= own || shared.paid.Load() >= common {
		t.Error("what was not used was not put back")
	}
	if b.Rest(); b.own.paid.Load() >= own {
		t.Error("it was taken back")
	}
}
