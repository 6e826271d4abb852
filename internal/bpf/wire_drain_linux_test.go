package bpf_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/spliced-io/spliced/internal/bpf"
	"github.com/spliced-io/spliced/internal/sys"
)

// A FIN that its sender has packed behind data from before the cut, sent again, goes
// across, and counts.
func TestWireKeepsFINFromSocket(t *testing.T) {
	o := loadWire(t)
	a, ba, _, _ := pairOf(0)
	keys, sides := watched(t, o, 0)
	if err := o.Switch(&sides, true); err != nil {
		t.Fatal(err)
	}
	segment := frame(a, ba)
	tcp := segment[14+20:]
	const cut = 1
	binary.BigEndian.PutUint32(tcp[4:], (cut-64)&0xffffffff)
	tcp[13] |= fin
	ret, err := o.WireIngress.Run(&ebpf.RunOptions{Data: segment})
	if err != nil || ret != wireRedirect {
		t.Fatalf("the program answers %d, %v, want a redirect", int32(ret), err)
	}
	if f, err := o.Flow(&keys[0]); err != nil || f.Fin != 1 || f.FinEnd != cut+1 {
		t.Errorf("%+v, %v: the FIN went across", f, err)
	}
}

// draining enters a pair that was switched: the sockets have 500 bytes for A, and nothing
// for C.
func (w *way) draining(t *testing.T, o *bpf.WireObjects) {
	t.Helper()
	keys := w.spliced(t, o)
	received := [2]uint32{sentByA, sentByC + undelivered}
	for i := range keys {
		edit(t, o, &keys[i], func(f *bpf.WireFlow) {
			f.State, f.Cut, f.Passed, f.End = bpf.WireDraining, received[i], received[i], received[i]
			f.Shown, f.From = f.Acked, f.Acked
			f.Owned, f.Promised = received[1-i], received[1-i]+room
			f.CutAck = received[1-i] - f.Rewrite.AckAdd
		})
	}
}

const undelivered = 500

// What the socket is shown of a segment, while it has something to deliver, it has to
// be able to believe; and what goes across must not tell the other side of a socket's clock.
func TestWireDrainingPackets(t *testing.T) {
	o := loadWire(t)
	stamps := []byte{1, 1, 8, 10}
	data := make([]byte, 64)
	const (
		heardByA = sentByC - addAck       // what A has acknowledged
		last     = heardByA + undelivered // the end of what the socket has for A
	)
	same := func(*crafted) {}
	for _, tc := range []struct {
		name   string
		change func(*crafted) // of an acknowledgement of half of what the socket has
		shown  func(*crafted) // what becomes of that, for the socket
		across func(*crafted) // or for C
	}{
		{"an acknowledgement", same, same, nil},
		{"of the far past", func(c *crafted) { c.ack -= 1 << 20 }, same, nil},
		{"timestamps", func(c *crafted) { c.options = join(stamps, be32(7, 8)) }, func(c *crafted) {
			c.options = join(stamps, be32(7, 0))
		}, nil},
		{"timestamps in another place", func(c *crafted) { c.options = join([]byte{8, 10}, be32(7, 8), []byte{1, 0}) }, func(c *crafted) {
			c.options = join([]byte{8, 10}, be32(7, 0), []byte{1, 0})
		}, nil},
		{"SACK of what it has sent", func(c *crafted) {
			c.options = join(stamps, be32(7, 8), []byte{1, 1, 5, 10}, be32(last-200, last))
		}, func(c *crafted) {
			c.options = join(stamps, be32(7, 0), []byte{1, 1, 5, 10}, be32(last-200, last))
		}, nil},
		{"SACK of that and of what went across", func(c *crafted) {
			c.options = join(stamps, be32(7, 8), []byte{1, 1, 5, 26}, be32(last+2000, last+3000, last-200, last+1000, last-400, last-300))
		}, func(c *crafted) {
			c.options = join(stamps, be32(7, 0), []byte{1, 1, 5, 26}, be32(last, last, last-200, last, last-400, last-300))
		}, nil},
		{"SACK without timestamps", func(c *crafted) { c.options = join([]byte{1, 1, 5, 10}, be32(last-200, last+1)) }, func(c *crafted) {
			c.options = join([]byte{1, 1, 5, 10}, be32(last-200, last))
		}, nil},
		{"behind what has gone across", func(c *crafted) { c.seq += 1000 }, func(c *crafted) { c.seq = sentByA }, nil},
		{"a keep-alive", func(c *crafted) { c.seq-- }, same, nil},
		// In IPv4 that is no different.
		{"the acknowledgement of a bundle of more than 64 KiB", func(c *crafted) { c.extensions = jumbo }, func(c *crafted) {
			c.extensions = []byte{0, 6, 0, 1, 4, 0, 0, 0, 0} // a short one has padding there
		}, nil},

		// The socket has it.
		{"data from before the cut", func(c *crafted) { c.seq, c.data = sentByA-64, data }, same, nil},
		{"that, with an acknowledgement of what went across", func(c *crafted) { c.seq, c.data, c.ack = sentByA-64, data, last+100 }, func(c *crafted) {
			c.ack = last
		}, nil},
		{"data from before to behind it", func(c *crafted) { c.seq, c.data, c.ack = sentByA-63, data, last }, nil, same},
		// The socket would end the connection, and the pair with it.
		{"a FIN behind data from before it", func(c *crafted) {
			c.seq, c.data, c.ack, c.flags = sentByA-64, data, last, ack|fin
		}, nil, same},

		{"an acknowledgement of all that the socket has", func(c *crafted) { c.ack, c.options = last, join(stamps, be32(7, 8)) }, nil, func(c *crafted) {
			c.options = join(stamps, be32(7+addTS, 0))
		}},
		{"of what went across too", func(c *crafted) { c.ack, c.options = last+1, join(stamps, be32(7, 8)) }, nil, func(c *crafted) {
			c.options = join(stamps, be32(7+addTS, 8+addEcho))
		}},
		{"of what the socket has, with data", func(c *crafted) { c.data, c.options = data, join(stamps, be32(7, 8)) }, nil, func(c *crafted) {
			// What the other socket has acknowledged, and the same right edge.
			c.ack, c.window = sentByC+undelivered, (100<<shiftIn-undelivered/2)>>shiftOut
			c.options = join(stamps, be32(7+addTS, 0))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for i := range ways {
				w := &ways[i]
				w.draining(t, o)
				was := crafted{from: w.a, to: w.ba, seq: sentByA, ack: heardByA + undelivered/2, flags: ack, window: 100}
				tc.change(&was)
				is, answer := was, int32(wireNext)
				if tc.shown != nil {
					tc.shown(&is)
				} else {
					answer = wireRedirect
					is.from, is.to, is.seq, is.ack = w.bc, w.c, was.seq+addSeq, was.ack+addAck
					is.window = was.window << (shiftIn - shiftOut)
					is.hops = hopsIn - 1
					tc.across(&is)
				}
				want := is.frame()
				in := was.frame()
				if was.extensions != nil && w.a.Addr().Is6() {
					in = noLength(in)
				}
				ret, out := runWire(t, o, in)
				if ret != answer || !bytes.Equal(out[14:], want[14:]) {
					t.Errorf("%s: %d, %x\nwant %d, %x", w.name, ret, out[14:], answer, want[14:])
				}
			}
		})
	}
}

// What a stranger says, who knows neither number, is for the receiver to judge: nothing is noted of it, and the socket,
// which would be told that all has arrived, gets nothing.
func TestWireDrainingStrangers(t *testing.T) {
	o := loadWire(t)
	const heardByA = sentByC - addAck
	past := uint32(sentByA)
	past -= 1 << 30
	for i := range ways {
		w := &ways[i]
		for _, tc := range []struct {
			name     string
			seq, ack uint32
			data     int
		}{
			{"an acknowledgement of what was not sent", sentByA, heardByA + 1<<30, 0},
			{"from far ahead", sentByA + 1<<30, heardByA + undelivered, 0},
			{"from the far past", past, heardByA + undelivered, 0},
			{"both", sentByA + 1<<30, heardByA + 1<<30, 0},
			{"with data from before the cut", past, heardByA + 1<<30, 64},
			{"with data", sentByA + 1<<30, heardByA + 1<<30, 64},
		} {
			w.draining(t, o)
			key := bpf.WireKeyOf(w.a, w.ba)
			was, err := o.Flow(&key)
			if err != nil {
				t.Fatal(err)
			}
			c := crafted{from: w.a, to: w.ba, seq: tc.seq, ack: tc.ack, flags: ack, window: 100, data: make([]byte, tc.data)}
			if ret, _ := runWire(t, o, c.frame()); ret != wireRedirect {
				t.Errorf("%s, %s: the program answers %d, want that it goes across alone", w.name, tc.name, ret)
			}
			f, err := o.Flow(&key)
			if err != nil || f.Acked != was.Acked || f.Shown != was.Shown || f.Edge != was.Edge || f.Shows > 0 || f.End != was.End {
				t.Errorf("%s, %s: %+v, %v, was %+v", w.name, tc.name, f, err, was)
			}
		}
	}
}

// A RST where its receiver is, is where the socket is when that gets it: it would pass over one beyond
// its window in silence, and nobody sends it again. It answers one that may be true.
func TestWireDrainingResets(t *testing.T) {
	o := loadWire(t)
	const across = 2 * room // sent since the cut
	for i := range ways {
		w := &ways[i]
		for _, tc := range []struct {
			name       string
			seq, shown uint32
		}{
			{"at the end of what went across", sentByA + across, sentByA},
			{"where C has acknowledged", sentByA + 1000, sentByA},
			{"where the socket is", sentByA, sentByA},
			{"where C may be", sentByA + 5000, sentByA + 1},
			{"behind all that was seen", sentByA + across + 1, sentByA + 1},
			{"before C", sentByA + 999, sentByA + 999},
			{"beyond all", sentByA + across + overEdge + 1, sentByA + across + overEdge + 1},
		} {
			w.draining(t, o)
			keys := [2]bpf.WireKey{bpf.WireKeyOf(w.a, w.ba), bpf.WireKeyOf(w.c, w.bc)}
			for i, change := range []func(*bpf.WireFlow){
				func(f *bpf.WireFlow) { f.End = sentByA + across },
				func(f *bpf.WireFlow) { f.Acked, f.Edge = sentByA+addSeq+1000, sentByA+addSeq+across },
			} {
				edit(t, o, &keys[i], change)
			}
			c := crafted{from: w.a, to: w.ba, seq: tc.seq, ack: sentByC - addAck, flags: rst | ack}
			ret, out := runWire(t, o, c.frame())
			if c.seq = tc.shown; ret != wireNext || !bytes.Equal(out, c.frame()) {
				t.Errorf("%s, %s: %d, %x, want it passed up as %x", w.name, tc.name, ret, out, c.frame())
			}
		}
	}
}

// What a receiver may send, as long as it gets bytes from a socket, ends where it is promised to at the switch, or with what
// it has sent already.
func TestWireDrainingWindows(t *testing.T) {
	o := loadWire(t)
	for i := range ways {
		w := &ways[i]
		const promised = sentByA + room/2
		for _, tc := range []struct {
			name      string
			sent      uint32 // by A
			shown     uint32 // to the socket, of what it has for A
			edge, end uint32 // of the window, as C says and as A gets it
		}{
			{"smaller than that", sentByA, 0, promised - 128, promised - 128},
			{"larger", sentByA, 0, promised + 128, promised},
			{"larger, and A has sent more", promised + 64, 0, promised + 128, promised + 64},
			{"larger, and A has sent all of it", promised + 256, 0, promised + 128, promised + 128},
			{"of a receiver that has all of the socket's", sentByA, undelivered, promised + 128, promised + 128},
		} {
			w.draining(t, o)
			keys := [2]bpf.WireKey{bpf.WireKeyOf(w.a, w.ba), bpf.WireKeyOf(w.c, w.bc)}
			for i, change := range []func(*bpf.WireFlow){
				func(f *bpf.WireFlow) { f.End, f.Shown = tc.sent, f.Shown+tc.shown },
				func(f *bpf.WireFlow) {
					f.Promised, f.Rewrite.WindowIn, f.Rewrite.WindowOut = promised, 5, 5
				},
			} {
				edit(t, o, &keys[i], change)
			}
			c := crafted{
				from: w.c, to: w.bc, seq: sentByC + undelivered, ack: sentByA + addSeq, flags: ack,
				window: uint16((tc.edge - sentByA) >> 5), data: make([]byte, 64),
			}
			ret, out := runWire(t, o, c.frame())
			c.from, c.to, c.seq, c.ack, c.hops = w.ba, w.a, c.seq-addAck, sentByA, hopsIn-1
			if c.window = uint16((tc.end - sentByA) >> 5); ret != wireRedirect || !bytes.Equal(out[14:], c.frame()[14:]) {
				t.Errorf("%s, %s: %d, %x, want %x", w.name, tc.name, ret, out[14:], c.frame()[14:])
			}
		}
	}
}

// A pair is not switched as long as a socket lacks something that was passed up to it:
// its sender might never hear that it has come.
func TestWireSwitchMeetsHole(t *testing.T) {
	o := loadWire(t)
	for side := range 2 {
		keys, sides := watched(t, o, 0)
		sides[side].Received-- // of what has passed
		if err := o.Switch(&sides, true); err != syscall.EAGAIN {
			t.Errorf("side %d: switching says %v, want EAGAIN", side, err)
		}
		for i := range keys {
			if f, err := o.Flow(&keys[i]); err != nil || f.State != bpf.WirePass {
				t.Errorf("side %d: %+v, %v: it is switched", side, f, err)
			}
		}
		sides[side].Received += 2 // before its entry was there
		if err := o.Switch(&sides, true); err != nil {
			t.Error(err)
		}
		if f, err := o.Flow(&keys[side]); err != nil || f.Cut != sides[side].Received {
			t.Errorf("side %d: %+v, %v, want a cut where the socket is", side, f, err)
		}
		for i := range keys {
			o.Delete(&keys[i])
		}
	}
}

// A socket need not have sent yet all that it has to deliver. Its peer can have the rest
// already: it went across, before its sender packed it with what was missing. The socket would
// ignore an acknowledgement of what it has not sent.
func TestWireShowsWhatSocketSent(t *testing.T) {
	o := loadWire(t)
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
			if err != nil {
				t.Skip(err) // no IPv6
			}
			defer ln.Close()
			dialed, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer dialed.Close()
			socket, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer socket.Close()
			if _, err := socket.Write(make([]byte, 100)); err != nil {
				t.Fatal(err)
			}
			sent := written(t, socket.(*net.TCPConn))

			peer := socket.RemoteAddr().(*net.TCPAddr).AddrPort()
			local := socket.LocalAddr().(*net.TCPAddr).AddrPort()
			key := bpf.WireKeyOf(peer, local)
			f := bpf.WireFlow{
				State: bpf.WireDraining, Seen: 1, Cut: 1000, Passed: 1000, End: 1000,
				Acked: sent - 50, Shown: sent - 50, Edge: sent + 50, CutAck: sent + 70,
			}
			if err := o.Insert(&key, &f); err != nil {
				t.Fatal(err)
			}
			blocks := func(of ...uint32) []byte { return join([]byte{1, 1, 5, byte(2 + 4*len(of))}, be32(of...)) }
			for _, tc := range []struct {
				name    string
				is, was crafted
			}{
				{"all that it has", crafted{seq: 1000, ack: sent}, crafted{seq: 1000, ack: sent}},
				{"more", crafted{seq: 1000, ack: sent}, crafted{seq: 1000, ack: sent + 60}},
				{
					"SACK of more",
					crafted{seq: 1000, ack: sent - 50, options: blocks(sent-20, sent)},
					crafted{seq: 1000, ack: sent - 50, options: blocks(sent-20, sent+200)},
				},
				{"data from before the cut", crafted{seq: 990, ack: sent, data: make([]byte, 10)}, crafted{seq: 990, ack: sent + 60, data: make([]byte, 10)}},
			} {
				for _, c := range []*crafted{&tc.is, &tc.was} {
					c.from, c.to, c.flags, c.window = peer, local, ack, 100
				}
				want := tc.is.frame()
				if ret, out := runWire(t, o, tc.was.frame()); ret != wireNext || !bytes.Equal(out[14:], want[14:]) {
					t.Errorf("%s: %d, %x\nwant %x", tc.name, ret, out[14:], want[14:])
				}
			}
		})
	}
}

// written is the number after all that a socket has been given to send.
func written(t *testing.T, c *net.TCPConn) (n uint32) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	cerr := raw.Control(func(v uintptr) {
		fd := int(v)
		if err = sys.SetRepair(fd, sys.RepairOn); err != nil {
			return
		}
		if err = sys.SetRepairQueue(fd, sys.SendQueue); err == nil {
			n, err = sys.QueueSeq(fd)
		}
		err = errors.Join(err, sys.SetRepairQueue(fd, sys.ReceiveQueue), sys.SetRepair(fd, sys.RepairOffNoProbe))
	})
	if err := errors.Join(cerr, err); err != nil {
		t.Fatal(err)
	}
	return n
}

// A limit that is further away than sequence numbers reach is kept by the program alone,
// to the byte: nobody has to put the bar forward.
func TestWireKeepsFarLimit(t *testing.T) {
	o := loadWire(t)
	a, ba, bc, c := pairOf(0)
	insertPair(t, o, 0)
	keys := [2]bpf.WireKey{bpf.WireKeyOf(a, ba), bpf.WireKeyOf(c, bc)}
	const (
		limit = 9<<30 + 1000
		ahead = 1 << 30
		step  = 300 << 20
	)
	err := o.Bar(&keys, &[2]bpf.WireBar{{Set: true, At: ahead, Beyond: limit - ahead}})
	if err != nil {
		t.Fatal(err)
	}
	answer := func(at int64) int32 {
		segment := frame(a, ba)
		binary.BigEndian.PutUint32(segment[14+20+4:], uint32(at))
		ret, err := o.WireIngress.Run(&ebpf.RunOptions{Data: segment})
		if err != nil {
			t.Fatal(err)
		}
		return int32(ret)
	}
	const length, redirect, drop = 64, 7, 2
	at := int64(0)
	for ; at+length < limit; at += step {
		if ret := answer(at); ret != redirect {
			t.Fatalf("at %d of %d the program answers %d, want a redirect", at, int64(limit), ret)
		}
	}
	if ret := answer(limit - length); ret != redirect {
		t.Errorf("before the limit the program answers %d, want a redirect", ret)
	}
	if ret := answer(limit - length + 1); ret != drop {
		t.Errorf("a byte beyond the limit the program answers %d, want that it is dropped", ret)
	}
	if f, err := o.Flow(&keys[0]); err != nil || f.Beyond != 0 || f.BarMet != 1 || f.HeldBack != 1 {
		t.Errorf("%+v, %v", f, err)
	}
}

// The process that is to settle a pair can be stopped, or wait for a processor, while more goes across than sequence
// numbers can be compared with: neither what is new nor what is acknowledged is taken for something from before the switch.
func TestWireDrainingFar(t *testing.T) {
	o := loadWire(t)
	const (
		heardByA = sentByC - addAck
		last     = heardByA + undelivered // the end of what the socket has for A
		far      = 1<<31 + 1000           // has gone across since
	)
	data := make([]byte, 64)
	for i := range ways {
		w := &ways[i]
		for _, tc := range []struct {
			name       string
			sent, back uint32  // by A, by C
			is         crafted // of A
		}{
			{"data", far, 0, crafted{seq: sentByA + far, ack: last, data: data}},
			{"an acknowledgement", 0, far, crafted{seq: sentByA, ack: last + far + 100}},
			{"an acknowledgement with data", 0, far, crafted{seq: sentByA, ack: last + far + 100, data: data}},
		} {
			w.draining(t, o)
			keys := [2]bpf.WireKey{bpf.WireKeyOf(w.a, w.ba), bpf.WireKeyOf(w.c, w.bc)}
			for i, change := range []func(*bpf.WireFlow){
				func(f *bpf.WireFlow) {
					f.End, f.Bytes, f.Shown = f.End+tc.sent, uint64(tc.sent), f.CutAck
					f.Acked, f.Edge = last+tc.back, last+tc.back+room
				},
				func(f *bpf.WireFlow) {
					f.End, f.Bytes = f.End+tc.back, uint64(tc.back)
					f.Acked, f.Edge = f.Acked+tc.sent, f.Edge+tc.sent
				},
			} {
				edit(t, o, &keys[i], change)
			}
			tc.is.from, tc.is.to, tc.is.flags, tc.is.window = w.a, w.ba, ack, 100
			want := tc.is
			want.from, want.to, want.seq, want.ack = w.bc, w.c, tc.is.seq+addSeq, tc.is.ack+addAck
			want.window, want.hops = 100<<(shiftIn-shiftOut), hopsIn-1
			ret, out := runWire(t, o, tc.is.frame())
			if is := want.frame(); ret != wireRedirect || !bytes.Equal(out[14:], is[14:]) {
				t.Errorf("%s, %s: %d, %x\nwant %d, %x", w.name, tc.name, ret, out[14:], wireRedirect, is[14:])
			}
		}
	}
}

// A socket has received more, which was past the program before its pair was entered, when all goes across. It is shown what is
// acknowledged of that; what went across behind it meanwhile goes across.
func TestWireDrainsAgain(t *testing.T) {
	o := loadWire(t)
	const late, heardByC = 3000, sentByA + addSeq
	for i := range ways {
		w := &ways[i]
		keys := w.spliced(t, o)
		for i, cut := range []uint32{sentByA, sentByC} {
			edit(t, o, &keys[i], func(f *bpf.WireFlow) {
				f.Cut, f.CutAck, f.Shown, f.From = cut, f.Acked, f.Acked, f.Acked
				f.Owned = []uint32{sentByC, sentByA}[i]
			})
		}
		c := crafted{from: w.c, to: w.bc, seq: sentByC, ack: heardByC + late/2, flags: ack, window: 100}
		if ret, _ := runWire(t, o, c.frame()); ret != wireRedirect {
			t.Errorf("%s: before, the program answers %d to C, want that it goes across", w.name, ret)
		}
		sides := [2]bpf.WireSide{{Key: keys[0], Received: sentByA + late}, {Key: keys[1], Received: sentByC}}
		for range 2 { // the second time nothing is new
			if err := o.Drain(&sides); err != nil {
				t.Fatal(err)
			}
		}
		if ret, out := runWire(t, o, c.frame()); ret != wireNext || !bytes.Equal(out, c.frame()) {
			t.Errorf("%s: the program answers %d, %x, want that it is shown", w.name, ret, out)
		}
		for _, tc := range []struct {
			name   string
			seq    uint32
			answer int32
		}{
			{"what came late", sentByA + late - 100, wireNext},
			{"what came behind it", sentByA + late, wireRedirect},
		} {
			a := crafted{from: w.a, to: w.ba, seq: tc.seq, ack: sentByC - addAck, flags: ack, window: 100, data: make([]byte, 100)}
			if ret, _ := runWire(t, o, a.frame()); ret != tc.answer {
				t.Errorf("%s: %s, sent again: the program answers %d, want %d", w.name, tc.name, ret, tc.answer)
			}
		}
		c.ack = heardByC + late
		if ret, _ := runWire(t, o, c.frame()); ret != wireRedirect {
			t.Errorf("%s: the program answers %d to C that has it all, want that it goes across", w.name, ret)
		}
		f, err := o.Flow(&keys[0])
		if err != nil || f.End != sentByA+late+100 || f.State != bpf.WireDraining {
			t.Errorf("%s: %+v, %v", w.name, f, err)
		}
		if f, err = o.Flow(&keys[1]); err != nil || f.Shown != heardByC+late || f.Owned != sentByA+late {
			t.Errorf("%s: %+v, %v", w.name, f, err)
		}
		if err := o.Settle(&keys); err != nil {
			t.Fatal(err)
		}
		if ret, _ := runWire(t, o, c.frame()); ret != wireRedirect {
			t.Errorf("%s: settled again, the program answers %d to C", w.name, ret)
		}
	}
}
