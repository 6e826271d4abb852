package peek

import (
	"container/heap"
	"time"
)

// clock holds guests with a deadline, all of the same, the soonest first
// (container/heap).
type clock []*guest

func (c clock) Len() int           { return len(c) }
func (c clock) Less(i, j int) bool { return c[i].Deadline.Before(c[j].Deadline) }

func (c clock) Swap(i, j int) {
	c[i], c[j] = c[j], c[i]
	c[i].place, c[j].place = i, j
}

func (c *clock) Push(x any) {
	g := x.(*guest)
	g.place = len(*c)
	*c = append(*c, g)
}

func (c *clock) Pop() any {
	last := len(*c) - 1
	g := (*c)[last]
	(*c)[last] = nil
	*c = (*c)[:last]
	g.place = -1
	return g
}

// next is when the time of the first is over. There must be one.
func (c clock) next(hurry bool) time.Time {
	g := c[0]
	if hurry && !g.Hurried.IsZero() && g.Hurried.Before(g.Deadline) {
		return g.Hurried
	}
	return g.Deadline
}

// clocks are those of all whose guests wait, none of them empty.
type clocks struct {
	of    map[any]*clock
	hurry map[any]int // how many are to leave, for others of the same and, of nil, for anybody
}

// push reports whether no other guest of the same is late sooner.
func (c *clocks) push(g *guest) (first bool) {
	own := c.of[g.Of]
	if own == nil {
		own = new(clock)
		if c.of == nil {
			c.of = make(map[any]*clock)
		}
		c.of[g.Of] = own
	}
	heap.Push(own, g)
	return g.place == 0
}

func (c *clocks) remove(g *guest) {
	own := c.of[g.Of]
	heap.Remove(own, g.place)
	if len(*own) == 0 {
		delete(c.of, g.Of)
	}
}

// first returns who is the next to be late, and when; nil if nobody ever is. There
// are as many clocks as listeners.
func (c *clocks) first() (g *guest, at time.Time) {
	for of, own := range c.of {
		next := own.next(c.hurry[nil] > 0 || c.hurry[of] > 0)
		if g == nil || next.Before(at) {
			g, at = (*own)[0], next
		}
	}
	return g, at
}

// soonest returns who would be the first to be late in a hurry, of those whose it is
// or, for nil, of all, and when; nil if nobody would.
func (c *clocks) soonest(of any) (g *guest, at time.Time) {
	for whose, own := range c.of {
		if of != nil && of != whose {
			continue
		}
		if next := own.next(true); g == nil || next.Before(at) {
			g, at = (*own)[0], next
		}
	}
	return g, at
}

// left notes that a guest of the same has left for others.
func (c *clocks) left(of any) {
	for _, of := range []any{nil, of} {
		if n := c.hurry[of]; n > 0 {
			c.set(of, n-1)
		}
	}
}

// set has n leave, and reports whether nobody had to before.
func (c *clocks) set(of any, n int) (begins bool) {
	begins = c.hurry[of] == 0 && n > 0
	switch {
	case n == 0:
		delete(c.hurry, of)
	case c.hurry == nil:
		c.hurry = make(map[any]int)
		fallthrough
	default:
		c.hurry[of] = n
	}
	return begins
}
