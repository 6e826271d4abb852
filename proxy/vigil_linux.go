package proxy

import (
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/sys"
)

// goodbye is how long a client that has sent a FIN and not a single byte may still
// be answered, as in the event loops: it may have come to listen only.
const goodbye = time.Second

// watchClient calls left when the client is gone: when its connection is broken, or
// it has said goodbye, and nothing else. One that has spoken may have said all that
// it has to say. Nobody may read from it before dismiss has returned.
func watchClient(client net.Conn, spoken bool, left func()) (dismiss func()) {
	c, ok := client.(syscall.Conn)
	if !ok {
		return func() {}
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return func() {}
	}
	dismissed, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		var broken, ended bool
		err := raw.Read(func(fd uintptr) bool {
			broken, ended = hungUp(int(fd), spoken)
			return broken || ended
		})
		switch {
		case err != nil: // dismissed
		case broken:
			left()
		case ended:
			timer := time.NewTimer(goodbye)
			defer timer.Stop()
			select {
			case <-timer.C:
				left()
			case <-dismissed:
			}
		}
	}()
	return sync.OnceFunc(func() {
		close(dismissed)
		_ = client.SetReadDeadline(time.Unix(1, 0))
		<-done
		_ = client.SetReadDeadline(time.Time{})
	})
}

// hungUp says whether a connection is broken, and whether its peer has ended it
// without a word.
func hungUp(fd int, spoken bool) (broken, ended bool) {
	broken, ended, err := sys.Hangup(fd)
	if err != nil {
		return false, false
	}
	if ended && !spoken {
		n, err := sys.Unread(fd)
		return broken, err == nil && n == 0
	}
	return broken, false
}
