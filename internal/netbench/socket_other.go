//go:build !linux

package netbench

import (
	"net"
	"syscall"
	"time"
)

func inspect(*net.TCPConn) (int, transport) { return 0, transport{} }

func sndbuf(*net.TCPConn) int { return 0 }

func lateBind(string, string, syscall.RawConn) error { return nil }

// blocking is the connection itself: Go's poller is in each latency.
type blocking struct{ conn *net.TCPConn }

func newBlocking(conn *net.TCPConn) (*blocking, error) { return &blocking{conn}, nil }

func (b *blocking) timeout(d time.Duration) error {
	// One deadline must do for the whole run.
	return b.conn.SetReadDeadline(time.Now().Add(time.Hour + d))
}

func (b *blocking) Read(p []byte) (int, error)  { return b.conn.Read(p) }
func (b *blocking) Write(p []byte) (int, error) { return b.conn.Write(p) }
func (b *blocking) Close() error                { return nil }

// sleepUntil waits for a point in time.
func sleepUntil(t time.Time) { time.Sleep(time.Until(t)) }
