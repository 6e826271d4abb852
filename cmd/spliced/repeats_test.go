package main

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // the timers' goroutines tell too
		var told []string
		r := &repeats[string]{tell: func(kind string, n int, last any) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, fmt.Sprint(kind, " ", n, " ", last))
		}}
		flood := func(kind string, n int) (alone int) {
			for i := range n {
				if r.again(kind, i+1) {
					alone++
				}
			}
			return alone
		}
		expect := func(want ...string) {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			slices.Sort(told)
			if !slices.Equal(told, want) {
				t.Errorf("told %q, want %q", told, want)
			}
			told = nil
		}
		if n := flood("a", 1000); n != repeatMost {
			t.Errorf("%d were told one by one, want %d", n, repeatMost)
		}
		if n := flood("b", 3); n != 3 {
			t.Errorf("%d of another kind were told, want all", n)
		}
		expect()
		time.Sleep(repeatEvery)
		synctest.Wait()
		expect("a 990 1000")
		if n := flood("a", 12); n != repeatMost {
			t.Errorf("%d were told in the next interval, want %d", n, repeatMost)
		}
		r.flush()
		expect("a 2 12")
		time.Sleep(2 * repeatEvery)
		synctest.Wait()
		expect()
	})
}

func TestSeldom(t *testing.T) {
	var s seldom
	now := time.Now()
	for _, step := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {0, false}, {999 * time.Millisecond, false}, {time.Millisecond, true}, {time.Millisecond, false}, {time.Hour, true}} {
		now = now.Add(step.after)
		if got := s.may(now); got != step.want {
			t.Errorf("%v later: %t, want %t", step.after, got, step.want)
		}
	}
}
