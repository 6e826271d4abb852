package splice_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/spliced-io/spliced/internal/sys"
	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/splice"
)

// Somebody else's sockmap or sockhash holds the sockets, with any program that
// leaves the bytes to them: Copy and Relay carry every byte, whatever splice(2)
// and FIONREAD say.

// foreignSize is small: no retransmission, no half-read segment, which kernels
// up to 6.18 repeat to a verdict's reader, whoever that is (docs/relay.md).
const foreignSize = 200_000

func eachForeignMap(t *testing.T, f func(t *testing.T, m *testnet.Sockmap, program string)) {
	testnet.Need(t, "root", "bpf")
	for _, typ := range []ebpf.MapType{ebpf.SockMap, ebpf.SockHash} {
		for _, program := range testnet.SockmapPrograms {
			t.Run(fmt.Sprintf("%v/%s", typ, program), func(t *testing.T) {
				testnet.Leaks(t)
				f(t, testnet.NewSockmap(t, typ, program), program)
			})
		}
	}
}

// foreignPair is a connection whose near end has the key 1 and the far end, if
// its program is about what is sent, the key 2.
func foreignPair(t *testing.T, m *testnet.Sockmap, program string) (near, far *net.TCPConn) {
	near, far = copyTCP(t)
	m.Put(1, near)
	if program == "msg-pass" || program == "msg-to-1" {
		m.Put(2, far)
	}
	return near, far
}

// blinds says whether the program has the bytes where splice(2) of a kernel
// without splice_read for such sockets does not look.
func blinds(program string) bool { return program == "skb-pass" || program == "msg-to-1" }

func TestCopyFromAForeignSockmap(t *testing.T) {
	data := randomBytes(foreignSize)
	eachForeignMap(t, func(t *testing.T, m *testnet.Sockmap, program string) {
		src, far := foreignPair(t, m, program)
		feed(t, src, far, data)
		dst, drained := copyTCP(t)
		got := collect(dst, drained)
		res, err := splice.Copy(t.Context(), dst, src)
		if err != nil || !bytes.Equal(got(), data) || res.Bytes != int64(len(data)) {
			t.Fatalf("%+v, %v", res, err)
		}
		if !blinds(program) && res.Method != splice.MethodSplice {
			t.Errorf("by %s (%s): splice(2) sees these bytes", res.Method, res.Why)
		}
	})
}

// What the tests here protect from: Go's own copy, which trusts splice(2).
func TestGoCopyLosesWhatAForeignSockmapHolds(t *testing.T) {
	data := randomBytes(1000)
	eachForeignMap(t, func(t *testing.T, m *testnet.Sockmap, program string) {
		if !blinds(program) {
			t.Skip("splice(2) sees these bytes")
		}
		src, far := foreignPair(t, m, program)
		dst, _ := copyTCP(t)
		if _, err := far.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := src.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(dst, src)
		if n == int64(len(data)) {
			t.Log("this kernel has splice_read for such sockets: io.Copy is right here")
			return
		}
		if n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("io.Copy: %d bytes, %v; want 0 of the %d that wait, or all", n, err, len(data))
		}
		// The same socket, right after it: nothing was lost, only not seen.
		ended, carried := make(chan error, 1), copiedTo(t)
		go func() {
			res, err := splice.Copy(t.Context(), carried, src, splice.MaxBytes(int64(len(data)), 0))
			if err == nil && res.Bytes != int64(len(data)) {
				err = fmt.Errorf("%d bytes", res.Bytes)
			}
			ended <- err
		}()
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("splice.Copy: %v", err)
			}
		case <-time.After(copyPatience):
			t.Fatal("splice.Copy hangs on the bytes that io.Copy has not seen")
		}
	})
}

// copiedTo returns a socket that somebody reads.
func copiedTo(t *testing.T) net.Conn {
	dst, far := copyTCP(t)
	done := make(chan struct{})
	go func() { defer close(done); _, _ = io.Copy(io.Discard, far) }()
	t.Cleanup(func() { dst.Close(); <-done })
	return dst
}

// The bytes that a program passed on before a reset come first.
func TestCopyFromAForeignSockmapBeforeAReset(t *testing.T) {
	data := randomBytes(50_000)
	eachForeignMap(t, func(t *testing.T, m *testnet.Sockmap, program string) {
		src, far := foreignPair(t, m, program)
		resetBehind(t, far, data)
		dst, drained := copyTCP(t)
		got := collect(dst, drained)
		res, err := splice.Copy(t.Context(), dst, src)
		if have := got(); !bytes.Equal(have, data) {
			t.Fatalf("%d of the %d bytes before the reset: %+v, %v", len(have), len(data), res, err)
		}
		if !errors.Is(err, syscall.ECONNRESET) || res.Reason != splice.ResetBySource {
			t.Errorf("%+v, %v", res, err)
		}
	})
}

// resetBehind sends data and, once it is with the peer's kernel, a RST.
func resetBehind(t *testing.T, c *net.TCPConn, data []byte) {
	t.Helper()
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(copyPatience)
	for unacked := 1; unacked != 0; time.Sleep(time.Millisecond) {
		onSocket(t, c, func(fd int) (err error) { unacked, err = sys.Unacked(fd); return err })
		if time.Now().After(deadline) {
			t.Fatal("the bytes are not acknowledged")
		}
	}
	if err := errors.Join(c.SetLinger(0), c.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestRelayInAForeignSockmap(t *testing.T) {
	data, back := randomBytes(foreignSize), randomBytes(foreignSize/2)
	eachForeignMap(t, func(t *testing.T, m *testnet.Sockmap, program string) {
		back := back
		if program == "msg-to-1" {
			back = nil // the relay's own bytes to the client would come back to it
		}
		for _, e := range []splice.Engine{splice.EngineAuto, splice.EngineCopy, splice.EngineSplice} {
			t.Run(e.String(), func(t *testing.T) {
				a, client := copyTCP(t)
				b, server := copyTCP(t)
				// a has the key that "msg-to-1" redirects to, so that its client's
				// bytes take that way; the others are members.
				m.Put(1, a)
				if program != "msg-to-1" {
					m.Put(2, b)
				} else {
					m.Put(2, client)
				}
				feedBoth := func(c *net.TCPConn, p []byte) {
					go func() {
						for len(p) > 0 { // in pieces, as a stream and as messages
							n := min(len(p), 1+len(p)/3)
							if _, err := c.Write(p[:n]); err != nil {
								return
							}
							p = p[n:]
						}
						_ = c.CloseWrite()
					}()
				}
				feedBoth(client, data)
				feedBoth(server, back)
				forth, rest := make(chan []byte, 1), make(chan []byte, 1)
				go func() { p, _ := io.ReadAll(server); forth <- p }()
				go func() { p, _ := io.ReadAll(client); rest <- p }()
				ctx, cancel := context.WithTimeout(t.Context(), copyPatience)
				defer cancel()
				res, err := splice.Relay(ctx, a, b, splice.Use(e))
				if err != nil || res.AToB.Reason != splice.EOF || res.BToA.Reason != splice.EOF {
					t.Fatalf("%v, %v", res, err)
				}
				if !bytes.Equal(<-forth, data) || !bytes.Equal(<-rest, back) {
					t.Fatalf("other bytes arrived: %v", res)
				}
			})
		}
	})
}
