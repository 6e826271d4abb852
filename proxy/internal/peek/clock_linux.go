package peek

import "time"

// clock holds guests with a deadline, the soonest first (container/heap).
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

// wait is how long, in milliseconds, nobody's time is over; -1 is for ever.
func (c clock) wait(now time.Time, hurry bool) int {
	if len(c) == 0 {
		return -1
	}
	// Rounded up: waking early would make the room spin.
	ms := (c.next(hurry).Sub(now) + time.Millisecond - 1) / time.Millisecond
	return int(min(max(0, ms), 1<<30)) // epoll_wait's is an int of 32 bits
}
