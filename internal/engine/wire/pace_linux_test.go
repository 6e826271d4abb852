package wire_test

import (
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/engine/wire"
)

// On lo the kernel expects a peer to have 64 KiB under way, before it has met as many. The other side
// has room for 64 KiB, less one message that is not delivered yet; and messages smaller than the unit of
// the window's scale never make a window smaller. Where exchanges follow each other so
// closely that the sockets are never empty, such a pair is to be switched all the same.
func TestSwitchBesideMessages(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "::1"} {
		t.Run(addr, func(t *testing.T) {
			c := newChain(t)
			b := &bench{}
			b.client, b.a = connectWith(t, c.B, c.B, addr, "", nil)
			b.b, b.server = connectWith(t, c.B, c.B, addr, "", nil)
			p := openPlane(t, c, wire.Config{}) // last: without a pair it soon ends
			pair := consider(t, c, p, b, func() {})
			eventually(t, "learned", func() bool { return pair.Learn([2]int{}) == nil })

			message := make([]byte, 64)
			for _, from := range []io.Writer{b.client, b.server} {
				if _, err := from.Write(message); err != nil {
					t.Fatal(err)
				}
			}
			began := time.Now()
			eventually(t, "switched", func() bool {
				err := pair.Switch(1+time.Since(began), false)
				if err != nil && err != syscall.EAGAIN && err != syscall.EOVERFLOW {
					t.Fatal(err)
				}
				return err == nil
			})
			t.Logf("switched after %v", time.Since(began))
			for _, way := range [][2]io.ReadWriter{{b.a, b.b}, {b.b, b.a}} {
				if _, err := io.CopyN(way[1], way[0], int64(len(message))); err != nil {
					t.Fatal(err)
				}
			}
			settle(t, pair)
			pair.Dissolve()
			for _, to := range []io.Reader{b.server, b.client} {
				if _, err := io.ReadFull(to, message); err != nil {
					t.Fatal(err)
				}
			}
			carry(t, b.client, b.server, 1<<20)
			carry(t, b.server, b.client, 1<<20)
			pair.Abort()
		})
	}
}
