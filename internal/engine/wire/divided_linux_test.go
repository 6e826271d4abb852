package wire_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/sys"
	"github.com/spliced-io/spliced/internal/testnet"
)

// narrow has C divide what it forwards to an address of B's, where senders allow that.
func narrow(t *testing.T, c *testnet.Chain, to string) {
	t.Helper()
	run(t, c.C, "route", "replace", to+"/32", "dev", testnet.LinkCB, "mtu", "lock", "1300")
}

// allowing is a bench whose client, on D behind C, leaves it to routers to divide its packets. The server is on A.
func allowing(t *testing.T, c *testnet.Chain) *bench {
	t.Helper()
	d := behind(t, c)
	if err := d.Sysctl("net.ipv4.ip_no_pmtu_disc", "1"); err != nil {
		t.Fatal(err)
	}
	b := &bench{}
	b.client, b.a = connect(t, d, c.B, testnet.AddrBC)
	b.b, b.server = connect(t, c.B, c.A, testnet.AddrA)
	return b
}

// received wants a descriptor to get the data.
func received(t *testing.T, fd int, data []byte) {
	t.Helper()
	got := make([]byte, len(data)+1)
	n := 0
	eventually(t, "the socket has got it", func() bool {
		m, err := syscall.Read(fd, got[n:])
		n += max(m, 0)
		if err != nil && err != syscall.EAGAIN {
			t.Fatal(err)
		}
		return n >= len(data)
	})
	if !bytes.Equal(got[:n], data) {
		t.Error("bytes differ")
	}
}

// What comes in fragments, and what would have to leave so, is for sockets. The program says so, drops it, and its sender
// sends it again when there are sockets.
func TestFragments(t *testing.T) {
	for _, tc := range []struct {
		name   string
		shrink func(*testing.T, *testnet.Chain)
	}{
		{"come in", func(t *testing.T, c *testnet.Chain) { narrow(t, c, testnet.AddrBC) }},
		{"would leave", func(t *testing.T, c *testnet.Chain) {
			t.Helper()
			if err := errors.Join(c.B.SetMTU(testnet.LinkBA, 1300), c.A.SetMTU(testnet.LinkAB, 1300)); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newChain(t)
			b := allowing(t, c)
			p := openPlane(t, c, wire.Config{}) // last: without a pair it soon ends
			news := make(chan struct{}, 100)
			pair := consider(t, c, p, b, func() { news <- struct{}{} })
			handOver(t, pair)
			carry(t, b.client, b.server, 1<<20)
			carry(t, b.server, b.client, 1<<20)
			was := atRest(t, pair)
			if was.Divided {
				t.Fatal("something was divided")
			}
			tc.shrink(t, c)
			data := make([]byte, 5000)
			_, _ = rand.NewChaCha8([32]byte{}).Read(data)
			if _, err := b.client.Write(data); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the program says that it is divided", func() bool {
				<-news
				v, err := pair.Look()
				return err == nil && v.Divided
			})
			v := atRest(t, pair)
			if v.Delivered != was.Delivered || v.Reset != [2]bool{} {
				t.Errorf("%+v, want that nothing has gone across", v)
			}
			fds := returned(t, pair)
			received(t, fds[0], data)
			for _, to := range []struct {
				fd   int
				conn *net.TCPConn
			}{{fds[0], b.client}, {fds[1], b.server}} {
				if _, err := syscall.Write(to.fd, data); err != nil {
					t.Error(err)
				}
				got := make([]byte, len(data))
				_ = to.conn.SetReadDeadline(time.Now().Add(patience))
				if _, err := io.ReadFull(to.conn, got); err != nil || !bytes.Equal(got, data) {
					t.Error("bytes differ: ", err)
				}
				_ = sys.Close(to.fd)
			}
		})
	}
}

// A pair whose packets come in fragments stays with its sockets.
func TestFragmentsBefore(t *testing.T) {
	c := newChain(t)
	b := allowing(t, c)
	p := openPlane(t, c, wire.Config{}) // last: without a pair it soon ends
	pair := consider(t, c, p, b, func() {})
	defer pair.Withdraw()
	narrow(t, c, testnet.AddrBC)
	carry(t, b.client, b.a, 5000)
	carry(t, b.b, b.server, 5000)
	eventually(t, "learned", func() bool { return pair.Learn([2]int{}) == nil })
	if err := pair.Switch(0, true); err != syscall.EMSGSIZE {
		t.Errorf("switching says %v, want %v", err, syscall.EMSGSIZE)
	}
}
