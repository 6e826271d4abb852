package netbench

import "time"

// window counts what arrived after the warm-up.
type window struct {
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`

	opens, opened, last time.Time
}

// start is called when the first byte may come.
func (w *window) start(warmup time.Duration) { w.opens = time.Now().Add(warmup) }

// add counts n bytes that have just arrived. The first that come after the
// warm-up open the window and are not in it.
func (w *window) add(n int) {
	now := time.Now()
	switch {
	case now.Before(w.opens):
		return
	case w.opened.IsZero():
		w.opened = now
	default:
		w.Bytes += int64(n)
	}
	w.last = now
}

// close is called after the last byte.
func (w *window) close() {
	if w.Bytes > 0 {
		w.Seconds = w.last.Sub(w.opened).Seconds()
	}
}

// rate is bytes per second.
func (w *window) rate() float64 {
	if w.Seconds <= 0 {
		return 0
	}
	return float64(w.Bytes) / w.Seconds
}
