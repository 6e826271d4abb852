package transfer

import (
	"io"
	"time"
)

// setReadDeadline returns false if r has no deadlines: what waits for it can't
// be interrupted that way.
func setReadDeadline(r io.Reader, t time.Time) bool {
	c, ok := r.(interface{ SetReadDeadline(time.Time) error })
	return ok && c.SetReadDeadline(t) == nil
}

func setWriteDeadline(w io.Writer, t time.Time) bool {
	c, ok := w.(interface{ SetWriteDeadline(time.Time) error })
	return ok && c.SetWriteDeadline(t) == nil
}

// past is a deadline that is over.
func past() time.Time { return time.Unix(1, 0) }

// watchByDeadlines is for ends whose waits deadlines interrupt.
func watchByDeadlines(src io.Reader, dst ...io.Writer) *watch {
	set := func(t time.Time) {
		setReadDeadline(src, t)
		for _, d := range dst {
			setWriteDeadline(d, t)
		}
	}
	none := func() { set(time.Time{}) }
	none()
	return &watch{interrupt: func() { set(past()) }, restore: none}
}
