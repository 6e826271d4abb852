package engine

import "time"

// A timer is somebody's place in a loop's heap.
type timer struct {
	owner interface{ expire(*loop) }
	at    time.Duration // loop clock; 0 is not set
	index int32         // in the heap, from 1; 0 is not in it
}

// timers is a heap, soonest first. A timer may ring early: activity only moves
// a session's real deadline back, and moving the timer each time would cost
// more than one look when it rings.
type timers []*timer

// set makes t ring at the latest at that time; 0 takes it out.
func (h *timers) set(t *timer, at time.Duration) {
	switch {
	case at == 0:
		h.remove(t)
	case t.index == 0:
		t.at = at
		*h = append(*h, t)
		t.index = int32(len(*h))
		h.up(int(t.index) - 1)
	case at < t.at:
		t.at = at
		h.up(int(t.index) - 1)
	}
}

// next is when the first timer rings; 0 if there is none.
func (h timers) next() time.Duration {
	if len(h) == 0 {
		return 0
	}
	return h[0].at
}

// pop takes out the first timer if it rings at now.
func (h *timers) pop(now time.Duration) *timer {
	if len(*h) == 0 || (*h)[0].at > now {
		return nil
	}
	t := (*h)[0]
	h.remove(t)
	return t
}

func (h *timers) remove(t *timer) {
	if t.index == 0 {
		return
	}
	i, last := int(t.index)-1, len(*h)-1
	h.swap(i, last)
	(*h)[last] = nil
	*h = (*h)[:last]
	t.index, t.at = 0, 0
	if i < last {
		h.down(i)
		h.up(i)
	}
}

func (h timers) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = int32(i+1), int32(j+1)
}

func (h timers) up(i int) {
	for i > 0 && h[i].at < h[(i-1)/2].at {
		h.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
}

func (h timers) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(h) {
			return
		}
		if child+1 < len(h) && h[child+1].at < h[child].at {
			child++
		}
		if h[i].at <= h[child].at {
			return
		}
		h.swap(i, child)
		i = child
	}
}
