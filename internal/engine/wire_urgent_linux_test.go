package engine_test

import (
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/engine"
	"github.com/spliced-io/spliced/internal/testnet"
)

// inline has a socket leave urgent bytes in the stream.
func inline(_, _ string, c syscall.RawConn) (err error) {
	cerr := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_OOBINLINE, 1) })
	return errors.Join(err, cerr)
}

// sayWith writes size bytes in pieces of random sizes, a third of them with a flag of sendmsg(2), and half-closes.
func sayWith(conn *net.TCPConn, flag int, seed byte, size int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	src, rng := rand.NewChaCha8([32]byte{seed}), rand.New(rand.NewPCG(uint64(seed), 7))
	for left := size; left > 0; {
		p := make([]byte, min(left, 1+rng.IntN(1<<rng.IntN(16))))
		_, _ = src.Read(p)
		left -= len(p)
		flags := syscall.MSG_NOSIGNAL
		if rng.IntN(3) == 0 {
			flags |= flag
		}
		for len(p) > 0 {
			n := 0
			cerr := raw.Write(func(fd uintptr) bool {
				n, err = syscall.SendmsgN(int(fd), p, nil, nil, flags)
				return err != syscall.EAGAIN
			})
			if err := errors.Join(err, cerr); err != nil {
				return err
			}
			p = p[n:]
		}
		if rng.IntN(20) == 0 {
			time.Sleep(time.Duration(rng.IntN(1000)) * time.Microsecond)
		}
	}
	return conn.CloseWrite()
}

// Urgent bytes, and pieces that are held back for more, come in all the time, from both sides, across hand-overs. Urgent
// ones keep their place in the stream.
func TestWireUrgent(t *testing.T) {
	const size, flows = 4 << 20, 12
	for _, tc := range []struct {
		name string
		flag int
	}{{"urgent", syscall.MSG_OOB}, {"more to come", syscall.MSG_MORE}} {
		t.Run(tc.name, func(t *testing.T) {
			c := wireChain(t)
			talk := func(conn *net.TCPConn, mine, theirs byte) error {
				said := make(chan error, 1)
				go func() { said <- sayWith(conn, tc.flag, mine, size) }()
				h := sha256.New()
				_, err := io.Copy(h, conn)
				if err == nil && [32]byte(h.Sum(nil)) != hashOf(theirs, size) {
					err = errors.New("bytes differ")
				}
				return errors.Join(err, <-said)
			}
			server := serveWith(t, c.C, testnet.AddrC, inline, func(conn *net.TCPConn) {
				if err := talk(conn, 2, 1); err != nil {
					t.Error("server:", err)
				}
			})
			r := startRelay(t, c.B, relaySpec{Listen: testnet.AddrBA + ":0", Target: server, Kind: uint8(engine.Wire)})
			var wg sync.WaitGroup
			for i := range flows {
				conn := dialWith(t, c.A, &net.Dialer{Control: inline}, r, testnet.AddrBA)
				wg.Go(func() {
					if err := talk(conn, 1, 2); err != nil {
						t.Error("client:", err)
					}
					conn.Close()
				})
				if i%3 == 2 {
					wg.Wait()
				}
			}
			wg.Wait()
			wired := 0
			for range flows {
				res := r.result(t)
				wantEOF(t, res, size, size)
				if res.Engine == "wire" {
					wired++
				}
			}
			if t.Logf("%d of %d were handed over", wired, flows); wired == 0 {
				t.Error("none was handed over")
			}
		})
	}
}
