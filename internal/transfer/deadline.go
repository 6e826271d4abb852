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
func watchByDeadlines(dst io.Writer, src io.Reader) *watch {
	none := func() {
		setReadDeadline(src, time.Time{})
		setWriteDeadline(dst, time.Time{})
	}
	none()
	return &watch{
		interrupt: func() {
			setReadDeadline(src, past())
			setWriteDeadline(dst, past())
		},
		restore: none,
	}
}
