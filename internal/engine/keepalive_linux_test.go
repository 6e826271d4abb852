package engine

import (
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/sys"
)

// A dialled connection that lasts is probed for signs of life.
func TestKeepAliveComesLater(t *testing.T) {
	fds, _ := ends(t)
	defer func() { _ = sys.Close(fds[0]); _ = sys.Close(fds[1]) }()
	option := func(level, name int) int {
		t.Helper()
		v, err := syscall.GetsockoptInt(fds[1], level, name)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	s := &Session{keepAt: keepDelay}
	s.timer.owner = s
	s.ends[0].fd, s.ends[1].fd = fds[0], fds[1]
	if err := syscall.SetsockoptInt(fds[1], syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 0); err != nil {
		t.Fatal(err)
	}
	l := &loop{now: time.Second}
	s.expire(l)
	if option(syscall.SOL_SOCKET, syscall.SO_KEEPALIVE) != 0 || l.timers.next() != keepDelay {
		t.Errorf("set too early, or the timer rings at %v, want %v", l.timers.next(), keepDelay)
	}
	l.now = l.timers.next()
	l.timers.pop(l.now).owner.expire(l)
	if on, idle := option(syscall.SOL_SOCKET, syscall.SO_KEEPALIVE), option(syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE); on != 1 || idle != keepIdle {
		t.Errorf("SO_KEEPALIVE %d, TCP_KEEPIDLE %d, want 1 and %d", on, idle, keepIdle)
	}
	if s.due() != 0 {
		t.Errorf("there is something due at %v", s.due())
	}
}
