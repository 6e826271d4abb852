package engine_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

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

// checkCapture checks a whole connection of the port, from SYN to FIN: no RST, every
// byte of both directions there, no acknowledgement of what was not sent, and
// timestamps that grow with the stream. It returns how many bytes went by twice.
func checkCapture(packets []packet, port uint16, total map[bool]int64) (twice int64, err error) {
	isn := make(map[bool]uint32)
	seen := make(map[bool][]stretch)
	end := make(map[bool]int64)
	for i, p := range packets {
		switch {
		case p.from != port && p.to != port:
			continue
		case p.rst:
			return 0, fmt.Errorf("packet %d: a RST", i)
		case p.syn:
			isn[p.out] = p.seq + 1
			continue
		}
		at := int64(p.seq - isn[p.out]) // streams of less than 4 GiB
		if ack := int64(p.ack - isn[!p.out]); ack > end[!p.out]+1 {
			return 0, fmt.Errorf("packet %d acknowledges %d, %d were sent", i, ack, end[!p.out])
		}
		if p.len > 0 {
			seen[p.out] = append(seen[p.out], stretch{at, at + int64(p.len), p.stamp})
			end[p.out] = max(end[p.out], at+int64(p.len))
		}
		if p.fin && at+int64(p.len) != total[p.out] {
			return 0, fmt.Errorf("packet %d: a FIN after %d bytes of %d", i, at+int64(p.len), total[p.out])
		}
	}
	for out, list := range seen {
		slices.SortStableFunc(list, func(a, b stretch) int { return int(a.from - b.from) })
		next, stamp := int64(0), list[0].stamp
		for _, s := range list {
			if s.from > next {
				return 0, fmt.Errorf("nothing from %d to %d (out: %v)", next, s.from, out)
			}
			if s.from < next {
				twice += min(next, s.to) - s.from
			} else if int32(s.stamp-stamp) < 0 {
				return 0, fmt.Errorf("at %d the timestamp goes back by %d (out: %v)", s.from, int32(stamp-s.stamp), out)
			} else {
				stamp = s.stamp
			}
			next = max(next, s.to)
		}
		if next != total[out] {
			return 0, fmt.Errorf("%d bytes of %d (out: %v)", next, total[out], out)
		}
	}
	return twice, nil
}

// What A and C see of a hand-over.
func TestWireCapture(t *testing.T) {
	for _, k := range []struct {
		name  string
		clean bool // nothing goes by twice
		play  func(*net.TCPConn) (sent, got int64, err error)
	}{
		{"ping-pong", true, func(c *net.TCPConn) (n, _ int64, err error) {
			var b [64]byte
			for began := time.Now(); time.Since(began) < 100*time.Millisecond; n += 64 {
				if _, err = c.Write(b[:]); err == nil {
					_, err = io.ReadFull(c, b[:])
				}
				if err != nil {
					return n, n, err
				}
			}
			return n, n, c.CloseWrite()
		}},
		{"stream", false, func(c *net.TCPConn) (int64, int64, error) {
			const size = 64 << 20
			var wg sync.WaitGroup
			var werr error
			wg.Go(func() {
				_, werr = io.Copy(c, io.LimitReader(rand.NewChaCha8([32]byte{}), size))
				werr = errors.Join(werr, c.CloseWrite())
			})
			n, err := io.Copy(io.Discard, c)
			wg.Wait()
			if err == nil && n != size {
				err = fmt.Errorf("%d bytes came back, want %d", n, size)
			}
			return size, n, errors.Join(err, werr)
		}},
	} {
		t.Run(k.name, func(t *testing.T) {
			c := wireChain(t)
			server := serve(t, c.C, testnet.AddrC, func(conn *net.TCPConn) {
				_, _ = io.Copy(conn, struct{ io.Reader }{conn})
				_ = conn.CloseWrite()
			})
			r := startRelay(t, c.B, relaySpec{Listen: testnet.AddrBA + ":0", Target: server, Kind: uint8(engine.Wire)})
			atA, atC := startCapture(t, c.A, testnet.LinkAB), startCapture(t, c.C, testnet.LinkCB)
			conn := dialRelay(t, c.A, r)
			sent, got, err := k.play(conn)
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
				t.Skipf("the machine was too busy to hand it over in time: %+v", res)
			}
			for _, side := range []struct {
				name string
				*capture
				addr  string
				total map[bool]int64
			}{
				{"A", atA, r.addr, map[bool]int64{true: sent, false: got}},
				{"C", atC, server, map[bool]int64{true: got, false: sent}},
			} {
				port := netip.MustParseAddrPort(side.addr).Port()
				eventuallySeen(t, side.capture, port)
				if n := side.lost(t); n > 0 {
					t.Skipf("the capture at %s lacks %d packets", side.name, n)
				}
				side.mu.Lock()
				twice, err := checkCapture(side.packets, port, side.total)
				count := len(side.packets)
				side.mu.Unlock()
				if err != nil {
					t.Errorf("at %s: %v", side.name, err)
				}
				if k.clean && twice > 0 {
					t.Errorf("at %s %d bytes went by twice", side.name, twice)
				}
				t.Logf("at %s: %d packets, %d bytes twice", side.name, count, twice)
			}
			t.Logf("%d attempts, windows closed for %v, packets across %v", res.Wire.Attempts, res.Wire.Closed, res.Wire.Packets)
		})
	}
}

// eventuallySeen waits for both FINs and for the acknowledgement of the last.
func eventuallySeen(t *testing.T, c *capture, port uint16) {
	t.Helper()
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
			return
		}
		if time.Now().After(end) {
			t.Fatal("the capture does not see the end")
		}
	}
}

// The checker finds what it is there for.
func TestCheckCapture(t *testing.T) {
	total := map[bool]int64{true: 20, false: 0}
	good := []packet{
		{out: true, from: 7, to: 9, syn: true, seq: 99},
		{from: 9, to: 7, syn: true, seq: 499, ack: 100},
		{out: true, from: 7, to: 9, seq: 100, ack: 500, len: 10, stamp: 1},
		{out: true, from: 7, to: 9, seq: 110, ack: 500, len: 10, stamp: 2, fin: true},
		{from: 9, to: 7, seq: 500, ack: 121, stamp: 5, fin: true},
	}
	if twice, err := checkCapture(good, 7, total); twice != 0 || err != nil {
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
	if twice, _ := checkCapture(append(slices.Clone(good), good[2]), 7, total); twice != 10 {
		t.Errorf("%d bytes twice, want 10", twice)
	}
}
