package engine

import (
	"time"

	"github.com/spliced-io/spliced/internal/sys"
)

// Set sets the options of a TCP socket. Those that the kernel does not have for it,
// as for MPTCP, stay what they are.
func (o *SocketOptions) Set(fd int) {
	seconds := func(d time.Duration, otherwise int) int {
		if d <= 0 {
			return otherwise
		}
		return max(1, int(d/time.Second))
	}
	count := o.KeepCount
	if count <= 0 {
		count = keepCount
	}
	_ = sys.SetKeepAlive(fd, seconds(o.KeepIdle, keepIdle), seconds(o.KeepInterval, keepInterval), count)
	if o.UserTimeout > 0 {
		_ = sys.SetUserTimeout(fd, max(1, int(o.UserTimeout/time.Millisecond)))
	}
	if o.UnsentMost > 0 {
		_ = sys.SetUnsentMost(fd, o.UnsentMost)
	}
}

// setOptions sets those of an end, if any are named for it.
func (s *Session) setOptions(end int) bool {
	e := &s.ends[end]
	if s.limits.Sockets == nil || !e.resettable || s.limits.Sockets[end] == (SocketOptions{}) {
		return false
	}
	s.limits.Sockets[end].Set(e.fd)
	return true
}
