package proxy

import (
	"fmt"
	"math"
	"net"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// options are none for those that every connection has anyway.
func (o *TCPOptions) options() splice.SocketOptions {
	usual := TCPOptions{
		KeepaliveIdle: Duration(keepAlive.Idle), KeepaliveInterval: Duration(keepAlive.Interval), KeepaliveCount: keepAlive.Count,
		UserTimeout: Never,
	}
	if *o == usual {
		return splice.SocketOptions{}
	}
	return splice.SocketOptions{
		KeepIdle: time.Duration(o.KeepaliveIdle), KeepInterval: time.Duration(o.KeepaliveInterval), KeepCount: o.KeepaliveCount,
		UserTimeout: o.UserTimeout.within(), UnsentMost: int(o.NotSentLowat),
	}
}

// The limits of the kernel: MAX_TCP_KEEPIDLE and its like in include/net/tcp.h.
const (
	maxKeepalive      = 32767 * time.Second
	maxKeepaliveCount = 127
)

func (k *checker) tcp(o *TCPOptions, path []string) {
	for key, d := range map[string]Duration{"keepalive_idle": o.KeepaliveIdle, "keepalive_interval": o.KeepaliveInterval} {
		if d := time.Duration(d); d != 0 && (d < time.Second || d > maxKeepalive || d%time.Second != 0) {
			k.wrong(fmt.Sprintf("%v: want whole seconds, 1s to %v", d, maxKeepalive), at(path, key)...)
		}
	}
	if o.KeepaliveCount < 0 || o.KeepaliveCount > maxKeepaliveCount {
		k.wrong(fmt.Sprintf("%d: want 1 to %d", o.KeepaliveCount, maxKeepaliveCount), at(path, "keepalive_count")...)
	}
	if d := time.Duration(o.UserTimeout); d > 0 && d < time.Millisecond || d > math.MaxInt32*time.Millisecond {
		k.wrong(fmt.Sprintf("%v: want 1ms to %v", d, time.Duration(math.MaxInt32)*time.Millisecond), at(path, "user_timeout")...)
	}
	if o.NotSentLowat < 0 || o.NotSentLowat > math.MaxInt32 {
		k.wrong(fmt.Sprintf("%d bytes: want 0 to %d", o.NotSentLowat, math.MaxInt32), at(path, "notsent_lowat")...)
	}
}

// setTCP sets the options of a connection that the event loops don't carry: TLS.
func setTCP(c net.Conn, o splice.SocketOptions) {
	t, ok := below(c).(*net.TCPConn)
	if !ok || o == (splice.SocketOptions{}) {
		return
	}
	if raw, err := t.SyscallConn(); err == nil {
		setRaw(raw, &o)
	}
}

func setRaw(raw syscall.RawConn, o *splice.SocketOptions) {
	_ = raw.Control(func(fd uintptr) { o.Set(int(fd)) }) // closed: nothing is lost
}
