package engine_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/spliced-io/spliced/internal/engine"
	"github.com/spliced-io/spliced/internal/testnet"
)

// A packet is a TCP segment over IPv4 that an interface has seen.
type packet struct {
	out           bool // it left
	from, to      uint16
	seq, ack      uint32
	flags         byte
	len           int
	stamped       bool
	stamp         uint32
	mss           uint16 // as a SYN announces it
	fin, syn, rst bool
}

// A capture holds what the interfaces of a namespace see, lo aside.
type capture struct {
	fd      int
	mu      sync.Mutex
	packets []packet
	done    chan struct{}
}

func startCapture(t *testing.T, ns *testnet.Namespace, link string) *capture {
	t.Helper()
	const all, force = 3, 33 // ETH_P_ALL, SO_RCVBUFFORCE
	c := &capture{done: make(chan struct{})}
	err := ns.Do(func() (err error) {
		wire := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, all))
		if c.fd, err = syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		i, err := net.InterfaceByName(link)
		if err == nil {
			err = syscall.SetsockoptInt(c.fd, syscall.SOL_SOCKET, force, 256<<20)
		}
		if err == nil {
			// So that the reader can look whether it is to end.
			err = syscall.SetsockoptTimeval(c.fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Usec: 50000})
		}
		if err == nil {
			err = syscall.Bind(c.fd, &syscall.SockaddrLinklayer{Protocol: wire, Ifindex: i.Index})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		buf := make([]byte, 128)
		for {
			n, from, err := syscall.Recvfrom(c.fd, buf, 0)
			if err == syscall.EAGAIN {
				select {
				case <-c.done:
					return
				default:
				}
			}
			if err != nil {
				continue
			}
			const outgoing = 4 // PACKET_OUTGOING
			link, ok := from.(*syscall.SockaddrLinklayer)
			if p, tcp := parsePacket(buf[:n]); ok && tcp {
				p.out = link.Pkttype == outgoing
				c.mu.Lock()
				c.packets = append(c.packets, p)
				c.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() {
		c.stop()
		<-gone
		_ = syscall.Close(c.fd)
	})
	return c
}

func (c *capture) stop() {
	select {
	case <-c.done:
	default:
		close(c.done)
	}
}

// lost is how many packets the socket had no room for.
func (c *capture) lost(t *testing.T) int {
	t.Helper()
	const packetLevel, statistics = 263, 6 // SOL_PACKET, PACKET_STATISTICS
	// struct tpacket_stats is two numbers, as struct ip_mreq: drops come second.
	v, err := syscall.GetsockoptIPMreq(c.fd, packetLevel, statistics)
	if err != nil {
		t.Fatal(err)
	}
	return int(binary.NativeEndian.Uint32(v.Interface[:]))
}

func parsePacket(b []byte) (p packet, ok bool) {
	const ether = 14
	if len(b) < ether+40 || binary.BigEndian.Uint16(b[12:]) != 0x0800 || b[ether+9] != syscall.IPPROTO_TCP {
		return p, false
	}
	ip := b[ether:]
	ihl := int(ip[0]&15) * 4
	if len(ip) < ihl+20 {
		return p, false
	}
	tcp := ip[ihl:]
	off := int(tcp[12]>>4) * 4
	p = packet{
		from: binary.BigEndian.Uint16(tcp), to: binary.BigEndian.Uint16(tcp[2:]),
		seq: binary.BigEndian.Uint32(tcp[4:]), ack: binary.BigEndian.Uint32(tcp[8:]),
		flags: tcp[13], len: int(binary.BigEndian.Uint16(ip[2:])) - ihl - off,
		fin: tcp[13]&1 != 0, syn: tcp[13]&2 != 0, rst: tcp[13]&4 != 0,
	}
	for o := tcp[20:min(off, len(tcp))]; len(o) > 1 && o[0] != 0; {
		if o[0] == 1 {
			o = o[1:]
			continue
		}
		n := int(o[1])
		if n < 2 || n > len(o) {
			break
		}
		if o[0] == 2 && n == 4 {
			p.mss = binary.BigEndian.Uint16(o[2:])
		}
		if o[0] == 8 && n == 10 {
			p.stamped, p.stamp = true, binary.BigEndian.Uint32(o[2:])
		}
		o = o[n:]
	}
	return p, true
}

// A stretch is a data segment, in bytes from the start of the stream.
type stretch struct {
	from, to int64
	stamp    uint32
}

// A repeat is a segment with bytes that went by before.
type repeat struct {
	stretch
	out   bool
	bytes int64
	// probe says that it is not larger than a segment: so a sender asks for an
	// acknowledgement that is late (RFC 8985, 7; RFC 6298). What it takes for lost it
	// sends again as it was.
	probe bool
}

// checkCapture checks a whole connection of the port, from SYN to FIN: no RST, every
// byte of both directions there, no acknowledgement of what was not sent, and no
// timestamp that is older than that of what was received in line before. It returns what went by twice.
func checkCapture(packets []packet, port uint16, total map[bool]int64) (twice []repeat, err error) {
	isn := make(map[bool]uint32)
	seen := make(map[bool][]stretch)
	end := make(map[bool]int64)
	mss := int64(0)
	for i, p := range packets {
		switch {
		case p.from != port && p.to != port:
			continue
		case p.rst:
			return nil, fmt.Errorf("packet %d: a RST", i)
		case p.syn:
			isn[p.out] = p.seq + 1
			mss = max(mss, int64(p.mss))
			continue
		}
		at := int64(p.seq - isn[p.out]) // streams of less than 4 GiB
		if ack := int64(p.ack - isn[!p.out]); ack > end[!p.out]+1 {
			return nil, fmt.Errorf("packet %d acknowledges %d, %d were sent", i, ack, end[!p.out])
		}
		if p.len > 0 {
			seen[p.out] = append(seen[p.out], stretch{at, at + int64(p.len), p.stamp})
			end[p.out] = max(end[p.out], at+int64(p.len))
		}
		if p.fin && at+int64(p.len) != total[p.out] {
			return nil, fmt.Errorf("packet %d: a FIN after %d bytes of %d", i, at+int64(p.len), total[p.out])
		}
	}
	for out, list := range seen {
		var past spans
		inOrder, recent := int64(0), list[0].stamp
		for _, s := range list {
			n := past.add(s.from, s.to)
			if n > 0 {
				twice = append(twice, repeat{s, out, n, s.to-s.from <= mss})
			}
			// As a receiver judges by RFC 7323, 5.3: what goes across may be there before
			// what the sockets still have to deliver, and is not in line then.
			if back := int32(recent - s.stamp); n < s.to-s.from && back > 0 {
				return nil, fmt.Errorf("at %d the timestamp goes back by %d (out: %v)", s.from, back, out)
			}
			if s.from <= inOrder && s.to > inOrder {
				recent, inOrder = s.stamp, past[0].to
			}
		}
		slices.SortStableFunc(list, func(a, b stretch) int { return int(a.from - b.from) })
		next := int64(0)
		for _, s := range list {
			if s.from > next {
				return nil, fmt.Errorf("nothing from %d to %d (out: %v)", next, s.from, out)
			}
			next = max(next, s.to)
		}
		if next != total[out] {
			return nil, fmt.Errorf("%d bytes of %d (out: %v)", next, total[out], out)
		}
	}
	return twice, nil
}

// overtaken returns the data segments of a connection that left by one end of a link before others, and arrived at the
// other end behind them.
func overtaken(left, arrived []packet, port uint16) (late []stretch) {
	type segment struct {
		seq, ack, stamp uint32
		len             int
	}
	places := make(map[segment][]int)
	isn := uint32(0)
	for i, p := range left {
		if p.out && (p.from == port || p.to == port) {
			if p.syn {
				isn = p.seq + 1
			}
			k := segment{p.seq, p.ack, p.stamp, p.len}
			places[k] = append(places[k], i)
		}
	}
	last := 0
	for _, p := range arrived {
		k := segment{p.seq, p.ack, p.stamp, p.len}
		if p.out || p.len == 0 || p.from != port && p.to != port || len(places[k]) == 0 {
			continue
		}
		place := places[k][0]
		places[k] = places[k][1:]
		if place < last {
			from := int64(p.seq - isn)
			late = append(late, stretch{from, from + int64(p.len), p.stamp})
		}
		last = max(last, place)
	}
	return late
}

// spans are the parts of a stream that went by, in order and apart from each other.
type spans []stretch

// add adds one, and says how many of its bytes were there.
func (s *spans) add(from, to int64) (there int64) {
	i := sort.Search(len(*s), func(i int) bool { return (*s)[i].to >= from })
	j := i
	whole := stretch{from: from, to: to}
	for ; j < len(*s) && (*s)[j].from <= to; j++ {
		there += max(0, min(to, (*s)[j].to)-max(from, (*s)[j].from))
		whole.from, whole.to = min(whole.from, (*s)[j].from), max(whole.to, (*s)[j].to)
	}
	*s = slices.Replace(*s, i, j, whole)
	return there
}

// captureTries bounds the connections until one is handed over, and captured without a gap.
const captureTries = 8

// What A and C see of a hand-over. On one processor nothing overtakes anything on the way
// between namespaces, so that nothing has to go by twice: without a relay, on two of them,
// up to some hundred KiB of 64 MiB do (docs/wire.md). But a sender may always ask once more.
func TestWireCapture(t *testing.T) {
	for _, k := range []struct {
		name  string
		alone bool // on one processor
		play  func(c *net.TCPConn, handed func() bool) (sent, got int64, err error)
	}{
		{"ping-pong", true, playPingPong},
		{"stream", true, playStream},
		{"stream on all processors", false, playStream},
	} {
		t.Run(k.name, func(t *testing.T) {
			if k.alone {
				onOneProcessor(t)
			}
			c := wireChain(t)
			server := serve(t, c.C, testnet.AddrC, func(conn *net.TCPConn) {
				_, _ = io.Copy(conn, struct{ io.Reader }{conn})
				_ = conn.CloseWrite()
			})
			r := startRelay(t, c.B, relaySpec{Listen: testnet.AddrBA + ":0", Target: server, Kind: uint8(engine.Wire)})
			for try := 1; ; try++ {
				why := captureHandOver(t, c, r, server, k.alone, k.play)
				if why == "" {
					return
				}
				if t.Logf("try %d: %s", try, why); try == captureTries {
					t.Fatal("no hand-over was captured")
				}
			}
		})
	}
}

// captureHandOver plays one connection and checks what was captured. why says that there
// was no hand-over, or not all was captured.
func captureHandOver(t *testing.T, c *testnet.Chain, r *relay, server string, strict bool,
	play func(*net.TCPConn, func() bool) (int64, int64, error),
) (why string) {
	t.Helper()
	atA, atC := startCapture(t, c.A, testnet.LinkAB), startCapture(t, c.C, testnet.LinkCB)
	atBA, atBC := startCapture(t, c.B, testnet.LinkBA), startCapture(t, c.B, testnet.LinkBC)
	for _, capture := range []*capture{atA, atC, atBA, atBC} {
		defer capture.stop()
	}
	conn := dialRelay(t, c.A, r)
	defer conn.Close()
	sent, got, err := play(conn, func() bool { return r.spliced(t) > 0 })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	conn.Close()
	res := r.result(t)
	wantEOF(t, res, sent, got)
	if res.Engine != "wire" {
		return "not handed over: " + res.Refused
	}
	for _, side := range []struct {
		name string
		*capture
		atB   *capture
		addr  string
		total map[bool]int64
	}{
		{"A", atA, atBA, r.addr, map[bool]int64{true: sent, false: got}},
		{"C", atC, atBC, server, map[bool]int64{true: got, false: sent}},
	} {
		port := netip.MustParseAddrPort(side.addr).Port()
		if !side.whole(port) {
			return "the capture at " + side.name + " does not see the end"
		}
		if n := side.lost(t); n > 0 {
			return fmt.Sprintf("the capture at %s lacks %d packets", side.name, n)
		}
		side.mu.Lock()
		twice, err := checkCapture(side.packets, port, side.total)
		count := len(side.packets)
		side.mu.Unlock()
		if err != nil {
			t.Errorf("at %s: %v", side.name, err)
		}
		probes, bytes := 0, int64(0)
		for _, s := range twice {
			if bytes += s.bytes; s.probe {
				probes++
			} else if strict {
				t.Errorf("at %s %d bytes from %d to %d went by twice (out: %v)", side.name, s.bytes, s.from, s.to, s.out)
			}
		}
		if t.Failed() {
			side.atB.mu.Lock()
			for _, s := range overtaken(side.packets, side.atB.packets, port) {
				t.Logf("on the way from %s to B what is from %d to %d was overtaken", side.name, s.from, s.to)
			}
			for _, s := range overtaken(side.atB.packets, side.packets, port) {
				t.Logf("on the way from B to %s what is from %d to %d was overtaken", side.name, s.from, s.to)
			}
			side.atB.mu.Unlock()
		}
		t.Logf("at %s: %d packets, %d bytes twice, in %d segments, %d of these probes", side.name, count, bytes, len(twice), probes)
	}
	t.Logf("%d attempts, windows closed for %v, packets across %v", res.Wire.Attempts, res.Wire.Closed, res.Wire.Packets)
	if t.Failed() {
		for name, ns := range map[string]*testnet.Namespace{"A": c.A, "B": c.B, "C": c.C} {
			t.Logf("%s's kernel has counted%s", name, droppedBy(ns))
		}
	}
	return ""
}

// droppedBy says what a kernel has dropped of segments that had come, and why its sockets sent again.
func droppedBy(ns *testnet.Namespace) (text string) {
	for _, name := range []string{
		"BeyondWindow", "TCPBacklogDrop", "TCPRcvQDrop", "PruneCalled", "TCPOFODrop", "TCPZeroWindowDrop",
		"TCPFastRetrans", "TCPLossProbes", "TCPTimeouts", "TCPSACKReorder", "TCPDSACKRecv",
	} {
		if n, err := ns.Counter("TcpExt" + name); err != nil || n > 0 {
			text += fmt.Sprintf(" %s %d", name, n)
		}
	}
	return text
}

// playPingPong exchanges messages until some went by the program.
func playPingPong(c *net.TCPConn, handed func() bool) (n, _ int64, err error) {
	var b [64]byte
	for began, after := time.Now(), 0; after < 10 && time.Since(began) < wirePatience; {
		for range 50 {
			if _, err = c.Write(b[:]); err == nil {
				_, err = io.ReadFull(c, b[:])
			}
			if err != nil {
				return n, n, err
			}
			n += int64(len(b))
		}
		if handed() {
			after++
		}
	}
	return n, n, c.CloseWrite()
}

// playStream sends until 16 MiB went by the program, and receives it all again. It gives up
// before the numbers of the checker wrap.
func playStream(c *net.TCPConn, handed func() bool) (sent, got int64, err error) {
	const piece, after, most = 1 << 20, 16 << 20, 2 << 30
	var wg sync.WaitGroup
	var werr error
	var past atomic.Bool
	wg.Go(func() {
		src := rand.NewChaCha8([32]byte{})
		left := int64(after)
		for left > 0 && sent < most && werr == nil {
			var n int64
			n, werr = io.CopyN(c, src, piece)
			if sent += n; past.Load() {
				left -= n
			}
		}
		werr = errors.Join(werr, c.CloseWrite())
	})
	over := make(chan struct{})
	go func() {
		defer close(over)
		got, err = io.Copy(io.Discard, c)
	}()
	for began := time.Now(); !past.Load() && time.Since(began) < wirePatience; time.Sleep(5 * time.Millisecond) {
		past.Store(handed())
	}
	past.Store(true)
	<-over
	wg.Wait()
	if err == nil && got != sent {
		err = fmt.Errorf("%d bytes came back, want %d", got, sent)
	}
	return sent, got, errors.Join(err, werr)
}

// onOneProcessor has the test, and what it starts, run on one processor until it ends.
func onOneProcessor(t *testing.T) {
	t.Helper()
	type cpus [128]byte
	call := func(number uintptr, thread int, set *cpus) error {
		if _, _, errno := syscall.Syscall(number, uintptr(thread), unsafe.Sizeof(*set), uintptr(unsafe.Pointer(set))); errno != 0 {
			return os.NewSyscallError("affinity", errno)
		}
		return nil
	}
	set := func(set *cpus) {
		for range 2 { // a thread may make another one meanwhile
			threads, err := filepath.Glob("/proc/self/task/*")
			for _, path := range threads {
				id, _ := strconv.Atoi(filepath.Base(path))
				// ESRCH: it has ended; those that come have what their makers have.
				if e := call(syscall.SYS_SCHED_SETAFFINITY, id, set); !errors.Is(e, syscall.ESRCH) {
					err = errors.Join(err, e)
				}
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	var was, first cpus
	if err := call(syscall.SYS_SCHED_GETAFFINITY, 0, &was); err != nil {
		t.Fatal(err)
	}
	for i, b := range was {
		if b != 0 {
			first[i] = b & -b
			break
		}
	}
	set(&first)
	t.Cleanup(func() { set(&was) })
}

// whole waits for both FINs and for the acknowledgement of the last.
func (c *capture) whole(port uint16) bool {
	for end := time.Now().Add(wirePatience); ; time.Sleep(time.Millisecond) {
		fins := make(map[bool]uint32)
		acked := make(map[bool]bool)
		c.mu.Lock()
		for _, p := range c.packets {
			if p.from != port && p.to != port {
				continue
			}
			if p.fin {
				fins[p.out] = p.seq + uint32(p.len) + 1
			}
			if fin, ok := fins[!p.out]; ok && p.ack == fin {
				acked[!p.out] = true
			}
		}
		c.mu.Unlock()
		if len(acked) == 2 {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// The checker finds what it is there for.
func TestCheckCapture(t *testing.T) {
	total := map[bool]int64{true: 20, false: 0}
	good := []packet{
		{out: true, from: 7, to: 9, syn: true, seq: 99, mss: 4},
		{from: 9, to: 7, syn: true, seq: 499, ack: 100},
		{out: true, from: 7, to: 9, seq: 100, ack: 500, len: 10, stamp: 1},
		{out: true, from: 7, to: 9, seq: 110, ack: 500, len: 10, stamp: 2, fin: true},
		{from: 9, to: 7, seq: 500, ack: 121, stamp: 5, fin: true},
	}
	if twice, err := checkCapture(good, 7, total); twice != nil || err != nil {
		t.Fatal(twice, err)
	}
	for name, change := range map[string]func([]packet) []packet{
		"RST":       func(p []packet) []packet { return append(p, packet{from: 9, to: 7, rst: true}) },
		"a hole":    func(p []packet) []packet { return slices.Delete(p, 2, 3) },
		"too short": func(p []packet) []packet { p[3].len, p[3].fin = 5, false; return p },
		"early FIN": func(p []packet) []packet { p[2].fin = true; return p },
		"early ack": func(p []packet) []packet { p[1], p[2] = p[2], p[1]; p[2].syn = false; p[2].ack = 150; return p },
		"old stamp": func(p []packet) []packet { p[3].stamp = 0; return p },
	} {
		if _, err := checkCapture(change(slices.Clone(good)), 7, total); err == nil {
			t.Errorf("%s was not found", name)
		}
	}
	for _, again := range []struct {
		seq   uint32
		len   int
		bytes int64
		probe bool
	}{
		{100, 10, 10, false},
		{106, 4, 4, true},
		{105, 4, 4, true},
		{105, 5, 5, false}, // more than a segment
	} {
		p := good[2]
		p.seq, p.len = again.seq, again.len
		twice, _ := checkCapture(slices.Insert(slices.Clone(good), 3, p), 7, total)
		if len(twice) != 1 || twice[0].bytes != again.bytes || twice[0].probe != again.probe {
			t.Errorf("%+v: %+v", again, twice)
		}
	}
}

func TestOvertaken(t *testing.T) {
	left := []packet{
		{out: true, from: 7, to: 9, syn: true, seq: 99},
		{out: true, from: 7, to: 9, seq: 100, len: 10},
		{out: true, from: 7, to: 9, seq: 110, len: 20},
		{from: 9, to: 7, seq: 500, len: 5},
		{out: true, from: 7, to: 9, seq: 100, len: 10}, // once more
	}
	arrived := slices.Clone(left)
	for i := range arrived {
		arrived[i].out = !arrived[i].out
	}
	if late := overtaken(left, arrived, 7); late != nil {
		t.Errorf("in order, and yet %v", late)
	}
	arrived[1], arrived[2] = arrived[2], arrived[1]
	if late := overtaken(left, arrived, 7); !slices.Equal(late, []stretch{{from: 0, to: 10}}) {
		t.Errorf("the first was overtaken, not %v", late)
	}
}
