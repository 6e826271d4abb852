package engine

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/spliced-io/spliced/internal/sys"
	"github.com/spliced-io/spliced/internal/testnet"
)

// A stream that is spliced meets somebody else's sockmap and a reset at once:
// splice(2) reports the reset, and only recv(2) has the bytes before it.
func TestResetBehindBytesThatSpliceDoesNotSee(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 2000)
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	pair := func() (dialed, accepted *net.TCPConn) {
		dialed = dialTo(t, ln.Addr().String())
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return dialed, c.(*net.TCPConn)
	}
	client, src := pair()
	dst, server := pair()
	testnet.NewSockmap(t, ebpf.SockMap, "skb-pass").Put(1, src)
	if _, err := client.Write(data); err != nil {
		t.Fatal(err)
	}
	fds := [2]int{descriptor(t, src), descriptor(t, dst)}
	peer := descriptor(t, client)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if n, err := sys.Unacked(peer); err != nil || time.Now().After(deadline) {
			t.Fatalf("%d bytes unacknowledged, %v", n, err)
		} else if n == 0 {
			break
		}
	}
	l := &loop{reactor: new(Reactor)}
	defer l.reactor.pipes.Trim()
	s := new(Session)
	for i := range s.ends {
		s.ends[i] = endpoint{session: s, fd: fds[i], slot: -1}
		if err := s.ends[i].prepare(); err != nil {
			t.Fatal(err)
		}
		s.ends[i].event(sys.EpollIn | sys.EpollOut | sys.EpollRDHup)
		defer sys.Close(fds[i])
	}
	_ = sys.Close(peer)
	resetConn(t, client)

	s.dirs[0].init(&s.ends[0], &s.ends[1], 0, nil)
	s.dirs[1].init(&s.ends[1], &s.ends[0], 0, nil)
	s.dirs[0].choice.init(Splice, WhyNoBytes)
	s.dirs[0].choice.streaming = true
	s.dirs[0].run(l, s)
	if d := &s.dirs[0]; d.reason() != ResetBySource || !errors.Is(d.err, syscall.ECONNRESET) || d.out.Load() != int64(len(data)) {
		t.Errorf("%d of %d bytes, %v, %v", d.out.Load(), len(data), d.reason(), d.err)
	}
	got := make([]byte, len(data))
	if err := server.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(server, got); err != nil || !bytes.Equal(got, data) {
		t.Errorf("other bytes arrived: %v", err)
	}
}

// descriptor returns a descriptor of its own.
func descriptor(t *testing.T, c *net.TCPConn) (fd int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var inner error
	if err := raw.Control(func(n uintptr) { fd, inner = sys.Dup(int(n)) }); err != nil || inner != nil {
		t.Fatal(err, inner)
	}
	return fd
}
