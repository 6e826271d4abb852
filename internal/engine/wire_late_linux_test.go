package engine_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/engine"
	"github.com/spliced-io/spliced/internal/sys"
	"github.com/spliced-io/spliced/internal/testnet"
)

// lateTries bounds the connections until one loses nothing but what it is to lose: a packet that a
// busy machine drops would be sent again only after a minute.
const lateTries = 5

// A segment was past the program before its pair was entered, and reaches its socket only when
// all goes across: the sockets deliver it, once and in its place, and leave then. So they do if it is more than one
// of them sends before it hears of an acknowledgement.
func TestWireLateSegment(t *testing.T) {
	c := wireChain(t)
	testnet.Need(t, "peers")
	// It is not to be sent again meanwhile.
	err := c.A.Sysctl("net.ipv4.tcp_rto_min_us", "60000000")
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("needs Linux 6.11: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	// Nor the last of several, to ask for an acknowledgement.
	if err := c.A.Sysctl("net.ipv4.tcp_early_retrans", "0"); err != nil {
		t.Fatal(err)
	}
	late := func(size int) {
		t.Helper()
		for try := 1; ; try++ {
			lost := lateSegment(t, c, size)
			if lost == "" {
				return
			}
			if t.Logf("%d bytes, try %d: lost %s", size, try, lost); try == lateTries {
				t.Fatal("something was lost each time")
			}
		}
	}
	late(1000)
	network := netip.MustParsePrefix(testnet.AddrBC + "/24").Masked().String()
	if err := c.B.Run(t.Context(), "", "ip", "route", "change", network, "dev", testnet.LinkBC, "initcwnd", "2"); err != nil {
		t.Fatal(err)
	}
	late(14000)
}

// lateSegment plays one connection, of which so many bytes come late. lost says what was lost on the way.
func lateSegment(t *testing.T, c *testnet.Chain, size int) (lost string) {
	t.Helper()
	const answers, settle = 2000, 3 * time.Second
	done := make(chan struct{})
	defer close(done)
	conns := make(chan *net.TCPConn, 1)
	server := serve(t, c.C, testnet.AddrC, func(conn *net.TCPConn) {
		conns <- conn
		<-done
	})
	r := startRelay(t, c.B, relaySpec{
		Listen: testnet.AddrBA + ":0", Target: server, Kind: uint8(engine.Auto), Settle: settle,
		Policy: engine.WirePolicy{Upgrade: true, AfterBytes: answers, AfterAge: time.Hour},
	})
	held, err := c.B.Hold(t.Context(), testnet.LinkBA, "meta length > 500")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := held.Close(); err != nil {
			t.Error(err)
		}
	}()
	conn := dialRelay(t, c.A, r)
	defer conn.Close()
	atServer := <-conns
	deadline := time.Now().Add(wirePatience)
	ctx, cancel := context.WithDeadline(t.Context(), deadline)
	defer cancel()
	_ = atServer.SetDeadline(deadline)
	_ = conn.SetDeadline(deadline)

	data := make([]byte, size+2000)
	_, _ = rand.NewChaCha8([32]byte{}).Read(data)
	first, rest := data[:size], data[size:]
	if _, err := conn.Write(first); err != nil {
		t.Fatal(err)
	}
	soon, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var packets [][]byte
	for n := 0; n < size; {
		packet, err := held.Next(soon)
		if errors.Is(err, context.DeadlineExceeded) {
			return "what was to be held"
		}
		if err != nil {
			t.Fatal(err)
		}
		packets = append(packets, packet)
		n += testnet.Payload(packet)
	}
	if err := held.Pass(); err != nil {
		t.Fatal(err)
	}
	if _, err := atServer.Write(make([]byte, answers)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, answers)); err != nil {
		t.Fatal(err)
	}
	var settled time.Time // not before
	for at := time.Now(); r.spliced(t) == 0; at = time.Now() {
		if settled = at; ctx.Err() != nil {
			t.Fatalf("not handed over: %+v", r.stats(t))
		}
		time.Sleep(time.Millisecond)
	}
	if st := r.stats(t); st.AToB != 0 || st.Wire.Late != 0 {
		t.Fatalf("%+v, want that nothing has been delivered", st)
	}
	if time.Since(settled) > settle/2 {
		return "the moment"
	}
	for _, p := range packets {
		if err := held.Release(p); err != nil {
			t.Fatal(err)
		}
	}
	for unacked(t, conn) > 0 {
		if ctx.Err() != nil {
			return "what was released"
		}
		time.Sleep(time.Millisecond)
	}
	// Behind it, and by the other way.
	if _, err := conn.Write(rest); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data))
	n, err := io.ReadFull(atServer, got)
	if errors.Is(err, os.ErrDeadlineExceeded) && unacked(t, conn) > 0 {
		return "what came behind it"
	}
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v, or others than were sent", n, err)
	}
	// The sockets leave: what has come late is no obstacle for long.
	if _, err := atServer.Write(first); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, got[:len(first)]); err != nil || !bytes.Equal(got[:len(first)], first) {
		t.Fatal(err)
	}
	for st := r.stats(t); st.AToB != int64(len(data)) || st.Wire.Late != 1; st = r.stats(t) {
		if ctx.Err() != nil {
			t.Fatalf("%+v, want %d bytes and one segment that came late", st, len(data))
		}
		time.Sleep(time.Millisecond)
	}
	// The server ends first: it would send a FIN that is lost again.
	_ = atServer.CloseWrite()
	if n, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("%d more bytes, %v", n, err)
	}
	_ = conn.CloseWrite()
	if n, err := atServer.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		return "a FIN"
	} else if err != io.EOF {
		t.Fatalf("%d more bytes, %v", n, err)
	}
	res := r.result(t)
	wantEOF(t, res, int64(len(data)), answers+int64(len(first)))
	if res.Engine != "wire" || res.Wire.Late != 1 || res.Wire.Errors != [2]uint64{} {
		t.Errorf("%+v", res)
	}
	return ""
}

// unacked is how many bytes a connection has sent that are not acknowledged.
func unacked(t *testing.T, c *net.TCPConn) (n int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		cerr := raw.Control(func(fd uintptr) { n, err = sys.Unacked(int(fd)) })
		err = errors.Join(err, cerr)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}
