package bpf_test

import (
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/bpf"
	"github.com/spliced-io/spliced/internal/sys"
)

// Anybody can send a segment with the right addresses. What its receiver would not
// believe goes across and is not counted: it neither ends a flow nor moves a number.
func TestWireBelief(t *testing.T) {
	o := loadWire(t)
	data := make([]byte, 100)
	const (
		heardByA = sentByC - addAck // what A acknowledges
		largest  = 65535 << shiftIn // window that A can announce
		underWay = 1000             // bytes of what A has sent, which C has not acknowledged
	)
	type numbers struct {
		End, Acked, Verdict uint32
		Fin, FinAcked       uint8
		Asked               bool // whether A is still there
	}
	still := numbers{End: sentByA, Acked: heardByA}
	reset := numbers{End: sentByA, Acked: heardByA, Verdict: bpf.WireEndedRST}
	asked := numbers{End: sentByA, Acked: heardByA, Asked: true}
	for _, tc := range []struct {
		name   string
		change func(*crafted) // of the next segment in line, without data
		want   numbers
	}{
		{"in line", func(c *crafted) { c.data = data }, numbers{End: sentByA + 100, Acked: heardByA}},
		{"behind a gap", func(c *crafted) { c.seq, c.data = sentByA-underWay+room-100, data }, numbers{End: sentByA - underWay + room, Acked: heardByA}},
		{"from within the window to beyond it", func(c *crafted) { c.seq, c.data = sentByA-underWay+room, data }, numbers{End: sentByA - underWay + room + 100, Acked: heardByA}},
		{"beyond the window", func(c *crafted) { c.seq, c.data = sentByA-underWay+room+1, data }, still},
		{"far beyond", func(c *crafted) { c.seq, c.data = sentByA+1<<30, data }, still},
		{"of the past", func(c *crafted) { c.seq, c.data = sentByA-1000, data }, still},
		{"of the far past", func(c *crafted) { c.seq, c.data = (sentByA+1000)^1<<31, data }, still},
		{"a probe into a closed window", func(c *crafted) { c.seq, c.data = sentByA, data[:1] }, numbers{End: sentByA + 1, Acked: heardByA}},
		{"data that acknowledges the far past", func(c *crafted) { c.data, c.ack = data, c.ack-largest-1 }, still},
		{"data that acknowledges the past", func(c *crafted) { c.data, c.ack = data, c.ack-largest }, numbers{End: sentByA + 100, Acked: heardByA}},
		{"data that acknowledges what was not sent", func(c *crafted) { c.data, c.ack = data, c.ack+room+overEdge+1 }, still},
		{"data without an acknowledgement", func(c *crafted) { c.data, c.flags = data, 0 }, still},
		{"an acknowledgement", func(c *crafted) { c.ack += 500 }, numbers{End: sentByA, Acked: heardByA + 500}},
		{"an acknowledgement of a segment that went beyond the window", func(c *crafted) { c.ack += room + overEdge }, numbers{End: sentByA, Acked: heardByA + room + overEdge}},
		{"an acknowledgement of what was not sent", func(c *crafted) { c.ack += room + overEdge + 1 }, still},
		{"a far one", func(c *crafted) { c.ack += 1 << 30 }, still},
		{"an old one", func(c *crafted) { c.ack -= 1 << 20 }, still},
		{"one of the past", func(c *crafted) { c.seq, c.ack = sentByA-underWay-1, c.ack+500 }, still},
		{"one from beyond the window", func(c *crafted) { c.seq, c.ack = sentByA-underWay+room+1, c.ack+500 }, still},
		{"one behind a gap", func(c *crafted) { c.seq, c.ack = sentByA+500, c.ack+500 }, numbers{End: sentByA, Acked: heardByA + 500}},
		{"one with data that is sent again", func(c *crafted) { c.seq, c.ack, c.data = sentByA-200, c.ack+500, data }, numbers{End: sentByA, Acked: heardByA + 500}},
		{"a FIN", func(c *crafted) { c.flags |= fin }, numbers{End: sentByA + 1, Acked: heardByA, Fin: 1}},
		{"a FIN behind a gap", func(c *crafted) { c.seq, c.flags = sentByA+1000, fin|ack }, numbers{End: sentByA + 1001, Acked: heardByA, Fin: 1}},
		{"a FIN beyond the window", func(c *crafted) { c.seq, c.flags = sentByA-underWay+room+1, fin|ack }, still},
		{"a FIN of the past", func(c *crafted) { c.seq, c.flags = sentByA-10, fin|ack }, still},
		{"a FIN that acknowledges the far past", func(c *crafted) { c.flags, c.ack = fin|ack, c.ack-largest-1 }, still},
		{"a FIN that acknowledges what was not sent", func(c *crafted) { c.flags, c.ack = fin|ack, c.ack+room+overEdge+1 }, still},
		{"a FIN behind a gap that does", func(c *crafted) { c.seq, c.flags, c.ack = sentByA+1000, fin|ack, c.ack+room+overEdge+1 }, still},
		{"a FIN without an acknowledgement", func(c *crafted) { c.flags = fin }, still},
		{"a FIN and a SYN", func(c *crafted) { c.flags |= fin | syn }, still},

		// One ends the flow at two numbers of all: a blind stranger has 2^31 to try. At any other
		// its receiver asks, and a sender that is gone says it again at one of the two.
		{"a RST at the end of what was sent", func(c *crafted) { c.flags = rst | ack }, reset},
		{"that, and it acknowledges more", func(c *crafted) { c.flags, c.ack = rst|ack, c.ack+500 }, numbers{End: sentByA, Acked: heardByA + 500, Verdict: bpf.WireEndedRST}},
		{"that, and it acknowledges what was not sent", func(c *crafted) { c.flags, c.ack = rst|ack, c.ack+room+overEdge+1 }, reset},
		{"that, without an acknowledgement", func(c *crafted) { c.flags, c.ack = rst, 0 }, reset},
		{"a RST at what is acknowledged", func(c *crafted) { c.seq, c.flags, c.ack = sentByA-underWay, rst, 0 }, reset},
		{"a RST in between", func(c *crafted) { c.seq, c.flags = sentByA-underWay/2, rst|ack }, asked},
		{"a RST a byte behind what is acknowledged", func(c *crafted) { c.seq, c.flags = sentByA-underWay+1, rst }, asked},
		{"a RST a byte before the end", func(c *crafted) { c.seq, c.flags = sentByA-1, rst }, asked},
		{"a RST a byte behind the end", func(c *crafted) { c.seq, c.flags = sentByA+1, rst }, asked},
		{"one that acknowledges more", func(c *crafted) { c.seq, c.flags, c.ack = sentByA-underWay/2, rst|ack, c.ack+500 }, asked},
		{"a RST at the end of the window", func(c *crafted) { c.seq, c.flags = sentByA-underWay+room, rst|ack }, asked},
		{"a RST beyond all that went into it", func(c *crafted) { c.seq, c.flags = sentByA-underWay+room+overEdge+1, rst|ack }, still},
		{"a RST of the past", func(c *crafted) { c.seq, c.flags = sentByA-underWay-1, rst }, still},
		{"a SYN", func(c *crafted) { c.seq, c.ack, c.flags = 77, 0, syn }, still},
		{"a SYN with an acknowledgement", func(c *crafted) { c.seq, c.flags, c.ack = 77, syn|ack, c.ack+1<<29 }, still},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for i := range ways {
				w := &ways[i]
				keys := w.spliced(t, o)
				edit(t, o, &keys[1], func(back *bpf.WireFlow) {
					back.Acked -= underWay
					back.Edge -= underWay
				})
				c := crafted{from: w.a, to: w.ba, seq: sentByA, ack: heardByA, flags: ack, window: room >> shiftIn}
				tc.change(&c)
				if ret, _ := runWire(t, o, c.frame()); ret != wireRedirect {
					t.Errorf("%s: the program answers %d, want that it goes across", w.name, ret)
				}
				f, err := o.Flow(&keys[0])
				if err != nil {
					t.Fatal(err)
				}
				if is := (numbers{f.End, f.Acked, f.Verdict, f.Fin, f.FinAcked, f.Doubted > 0}); is != tc.want {
					t.Errorf("%s: %+v, want %+v", w.name, is, tc.want)
				}
				if back, err := o.Flow(&keys[1]); err != nil || back.PeerFin != 0 != (tc.want.Fin != 0) {
					t.Errorf("%s: %+v, %v", w.name, back, err)
				}
			}
		})
	}
}

// A window that shrinks takes nothing back: what was sent into it may still be
// acknowledged. An acknowledgement of what has crossed is believed in any case.
func TestWireBeliefOfWindows(t *testing.T) {
	o := loadWire(t)
	w := &ways[0]
	keys := w.spliced(t, o)
	const heardByA = sentByC - addAck
	says := func(ackOf, window uint32, believed bool) {
		t.Helper()
		c := crafted{from: w.a, to: w.ba, seq: sentByA, ack: ackOf, flags: ack, window: uint16(window >> shiftIn)}
		runWire(t, o, c.frame())
		if f, err := o.Flow(&keys[0]); err != nil || (f.Acked == ackOf) != believed {
			t.Errorf("%+v, %v; believed: want %v", f, err, believed)
		}
	}
	says(heardByA, 0, true)
	says(heardByA+room, 0, true) // as was announced before
	says(heardByA+room+overEdge+1, 0, false)
	probe := crafted{from: w.c, to: w.bc, seq: sentByC + room + overEdge, ack: sentByA + addSeq, flags: ack, window: 1, data: []byte{1}}
	edit(t, o, &keys[1], func(f *bpf.WireFlow) {
		f.End = sentByC + room + overEdge // what A has acknowledged
	})
	runWire(t, o, probe.frame())
	says(heardByA+room+overEdge+1, room, true)
	says(heardByA+2*room+overEdge+1, 0, true)
}

// Behind a FIN a RST may be at its number: some end a connection so. Nobody is asked for twice in a second.
func TestWireBeliefOfResets(t *testing.T) {
	o := loadWire(t)
	for i := range ways {
		w := &ways[i]
		sends := func(flags byte, seq uint32) crafted {
			return crafted{from: w.a, to: w.ba, seq: seq, ack: sentByC - addAck, flags: flags, window: room >> shiftIn}
		}
		look := func(k *bpf.WireKey) bpf.WireFlow {
			t.Helper()
			f, err := o.Flow(k)
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
		keys := w.spliced(t, o)
		runWire(t, o, sends(rst, sentByA+1).frame())
		first := look(&keys[0]).Doubted
		runWire(t, o, sends(rst, sentByA+2).frame())
		if f := look(&keys[0]); first == 0 || f.Doubted != first || f.Verdict != 0 {
			t.Errorf("%s: asked at %d, and then at %d, %+v", w.name, first, f.Doubted, f)
		}
		runWire(t, o, sends(fin|ack, sentByA).frame())
		runWire(t, o, sends(rst, sentByA).frame())
		if f := look(&keys[0]); f.Verdict != bpf.WireEndedRST || f.Over == 0 || look(&keys[1]).Over == 0 {
			t.Errorf("%s: %+v, want that it is over", w.name, f)
		}
	}
}

// A peer on this machine that leaves unanswered what is said to it again is asked whether it is there. An answer in between is
// enough, and others are left to say so themselves.
func TestWireBeliefOfSilence(t *testing.T) {
	o := loadWire(t)
	const away = time.Second // as long as any wait
	type sent struct {
		seq   uint32 // from sentByA on
		size  int
		after time.Duration // the one before
	}
	const back = ^uint32(0)
	for _, tc := range []struct {
		name     string
		heard    time.Duration // before the first; of the peer
		asked    time.Duration // before the first; 0 is never
		ifindex  uint32
		sent     []sent
		answered bool // before the last
		asks     bool
	}{
		{"data, once", away, 0, 1, []sent{{back - 99, 100, 0}}, false, false},
		{"data, twice", away, 0, 1, []sent{{back - 99, 100, 0}, {back - 99, 100, away}}, false, true},
		{"data, twice at a time", away, 0, 1, []sent{{back - 99, 100, 0}, {back - 99, 100, 0}}, false, false},
		{"a probe, twice", away, 0, 1, []sent{{back, 0, 0}, {back, 0, away}}, false, true},
		{"answered", away, 0, 1, []sent{{back, 0, 0}, {back, 0, away}}, true, false},
		{"new data", away, 0, 1, []sent{{0, 100, 0}, {100, 100, away}}, false, false},
		{"new data, and again", away, 0, 1, []sent{{0, 100, 0}, {0, 100, away}, {0, 100, away}}, false, true},
		{"heard of just now", 0, 0, 1, []sent{{back, 0, 0}, {back, 0, 0}}, false, false},
		{"on another machine", away, 0, 2, []sent{{back, 0, 0}, {back, 0, away}}, false, false},
		{"asked just now", away, time.Millisecond, 1, []sent{{back, 0, 0}, {back, 0, away / 4}}, false, false},
		{"asked before", away, 2 * away, 1, []sent{{back, 0, 0}, {back, 0, away / 4}}, false, true},
	} {
		for i := range ways {
			w := &ways[i]
			asked := false
			within(t, "all of it in less than any wait", away/10, func() {
				keys := w.spliced(t, o)
				// earlier has all that is noted be so much older, and changes it.
				earlier := func(by time.Duration, change func(a, c *bpf.WireFlow)) (doubted uint64) {
					t.Helper()
					var flows [2]bpf.WireFlow
					var err error
					for i := range keys {
						if flows[i], err = o.Flow(&keys[i]); err != nil {
							t.Fatal(err)
						}
					}
					a, c := &flows[0], &flows[1]
					c.LastSeen -= uint64(by)
					if a.Begged > 0 {
						a.Begged -= uint64(by)
					}
					if c.Doubted > 0 {
						c.Doubted -= uint64(by)
					}
					change(a, c)
					for i := range keys {
						if err := o.Flows.Put(&keys[i], &flows[i]); err != nil {
							t.Fatal(err)
						}
					}
					return c.Doubted
				}
				before := func(d time.Duration) uint64 { return uint64(sys.Monotonic() - int64(d)) }
				was := earlier(0, func(a, c *bpf.WireFlow) {
					a.Rewrite.Ifindex, c.LastSeen = tc.ifindex, before(tc.heard)
					if tc.asked > 0 {
						c.Doubted = before(tc.asked)
					}
				})
				for n, s := range tc.sent {
					was = earlier(s.after, func(_, c *bpf.WireFlow) {
						if tc.answered && n == len(tc.sent)-1 {
							c.LastSeen = before(away / 2)
						}
					})
					c := crafted{
						from: w.a, to: w.ba, seq: sentByA + s.seq, ack: sentByC - addAck, flags: ack, window: 1, data: make([]byte, s.size),
					}
					if ret, _ := runWire(t, o, c.frame()); ret != wireRedirect {
						t.Errorf("%s, %s: the program answers %d, want that it goes across", w.name, tc.name, ret)
					}
				}
				c, err := o.Flow(&keys[1])
				if err != nil {
					t.Fatal(err)
				}
				asked = c.Doubted != was
			})
			if asked != tc.asks {
				t.Errorf("%s, %s: asked %v, want %v", w.name, tc.name, asked, tc.asks)
			}
		}
	}
}

// within has f done in less than a time: again, on a machine that is busy.
func within(t *testing.T, what string, most time.Duration, f func()) {
	t.Helper()
	for range 100 {
		began := time.Now()
		if f(); time.Since(began) < most {
			return
		}
	}
	t.Fatal("not done: ", what)
}

// A clock that goes back is not believed, as the receiver would not (PAWS), once a segment was in
// line since the switch; nor is one of a segment that is not believed. The newest is that of a socket which
// takes the pair back. What is overtaken is believed if it has something new.
func TestWireBeliefOfClocks(t *testing.T) {
	o := loadWire(t)
	const (
		heardByA = sentByC - addAck
		clock    = ^uint32(0) - 500 // it wraps
		never    = 77
	)
	type sent struct {
		seq   uint32 // from sentByA on
		size  int
		flags byte
		clock uint32 // from clock on
		ack   uint32 // from heardByA on
	}
	for _, tc := range []struct {
		name       string
		sent       []sent
		end, acked uint32 // from sentByA, heardByA on
		clock      uint32 // from clock on; never is that none was believed
		fin        uint8
	}{
		{"later and later", []sent{{0, 100, ack, 0, 0}, {100, 100, ack, 1000, 500}}, 200, 500, 1000, 0},
		{"a jump", []sent{{0, 100, ack, 0, 0}, {100, 100, ack, 1 << 30, 0}}, 200, 0, 1 << 30, 0},
		{"a tick back", []sent{{0, 100, ack, 10, 0}, {100, 100, ack, 9, 500}}, 200, 500, 10, 0},
		{"data from before", []sent{{0, 100, ack, 10, 0}, {100, 100, ack, 8, 0}}, 100, 0, 10, 0},
		{"data from long before", []sent{{0, 100, ack, 10, 0}, {100, 100, ack, ^uint32(0) - 1<<30, 0}}, 100, 0, 10, 0},
		{"an acknowledgement from before", []sent{{0, 0, ack, 10, 0}, {0, 0, ack, 8, 500}}, 0, 0, 10, 0},
		{"a FIN from before", []sent{{0, 100, ack, 10, 0}, {100, 0, fin | ack, 8, 0}}, 100, 0, 10, 0},
		{"and the true one", []sent{{0, 100, ack, 10, 0}, {100, 0, fin | ack, 8, 0}, {100, 0, fin | ack, 11, 0}}, 101, 0, 11, 1},
		{"a FIN from before, behind a gap", []sent{{0, 100, ack, 10, 0}, {200, 0, fin | ack, 8, 0}}, 100, 0, 10, 0},

		{"with a number that is not believed", []sent{{room + 1, 0, ack, 10, 0}}, 0, 0, never, 0},
		{"of the past", []sent{{^uint32(0) - 2000, 100, ack, 10, 0}}, 0, 0, never, 0},
		{"with an acknowledgement that is not", []sent{{0, 0, ack, 10, room + overEdge + 1}}, 0, 0, never, 0},
		{"with a RST that is not", []sent{{1, 0, rst | ack, 10, 0}}, 0, 0, never, 0},
		{"with a SYN", []sent{{0, 0, syn | ack, 10, 0}}, 0, 0, never, 0},

		{"sent again", []sent{{0, 100, ack, 10, 0}, {100, 100, ack, 10, 0}, {0, 100, ack, 300, 0}}, 200, 0, 300, 0},
		{"overtaken by what is sent again", []sent{{0, 100, ack, 10, 0}, {100, 100, ack, 10, 0}, {0, 100, ack, 300, 0}, {200, 0, fin | ack, 20, 0}}, 201, 0, 300, 1},
		{"overtaken by data", []sent{{0, 100, ack, 10, 0}, {200, 100, ack, 30, 0}, {100, 100, ack, 20, 0}}, 300, 0, 30, 0},
		{"a FIN overtaken by what comes behind it", []sent{{0, 100, ack, 10, 0}, {101, 0, ack, 30, 500}, {100, 0, fin | ack, 20, 0}}, 101, 500, 30, 1},
		{"the first, overtaken", []sent{{100, 0, ack, 30, 500}, {0, 100, ack, 20, 0}}, 100, 500, 30, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for i := range ways {
				w := &ways[i]
				keys := w.spliced(t, o)
				edit(t, o, &keys[0], func(f *bpf.WireFlow) {
					const watched = clock + never // before the switch
					if f.Tsval = watched; tc.clock != never {
						f.Tsval += 1 << 30 // a stranger's: it counts for nothing behind the first
					}
				})
				for _, s := range tc.sent {
					c := crafted{
						from: w.a, to: w.ba, seq: sentByA + s.seq, ack: heardByA + s.ack, flags: s.flags, window: 1,
						data: make([]byte, s.size), options: join([]byte{1, 1, 8, 10}, be32(clock+s.clock, 0)),
					}
					if ret, _ := runWire(t, o, c.frame()); ret != wireRedirect {
						t.Errorf("%s: the program answers %d, want that it goes across", w.name, ret)
					}
				}
				if f, err := o.Flow(&keys[0]); err != nil || f.End != sentByA+tc.end || f.Acked != heardByA+tc.acked ||
					f.Tsval != clock+tc.clock || f.Fin != tc.fin {
					t.Errorf("%s: end %d, acknowledged %d, clock %d, FIN %d, %v; want %+v", w.name,
						f.End-sentByA, f.Acked-heardByA, f.Tsval-clock, f.Fin, err, tc)
				}
			}
		})
	}
}

// A FIN with a clock of the past is one when its receiver has acknowledged it: what went by before with a newer
// clock can be lost behind, and be sent again. Nothing else makes it one.
func TestWireBeliefOfOutdatedFINs(t *testing.T) {
	o := loadWire(t)
	const (
		heardByA = sentByC - addAck
		clock    = ^uint32(0) - 5
		size     = 100 // of the data before the FIN
	)
	for _, tc := range []struct {
		name  string
		fin   uint32   // its number, behind the data
		data  int      // that comes with it
		acked []uint32 // by C, behind the data before it
		sent  int      // by A, before that
		ends  bool
	}{
		{"acknowledged", 0, 0, []uint32{1}, 0, true},
		{"acknowledged after the data", 0, 0, []uint32{0, 1}, 0, true},
		{"acknowledged with its data", 0, 50, []uint32{51}, 0, true},
		{"not acknowledged", 0, 0, []uint32{0}, 0, false},
		{"behind a gap", 200, 0, []uint32{0, 100, 201}, 0, true},
		{"passed over", 200, 0, []uint32{0, 202}, 0, false},
		{"of a number that has data", 0, 0, []uint32{1}, 50, false},
		{"of a number before more data", 0, 0, []uint32{0, 50, 1}, 50, false},
	} {
		for i := range ways {
			w := &ways[i]
			keys := w.spliced(t, o)
			says := func(seq uint32, size int, flags byte, at uint32) {
				t.Helper()
				c := crafted{
					from: w.a, to: w.ba, seq: sentByA + seq, ack: heardByA, flags: flags, window: 1,
					data: make([]byte, size), options: join([]byte{1, 1, 8, 10}, be32(clock+at, 0)),
				}
				if ret, _ := runWire(t, o, c.frame()); ret != wireRedirect {
					t.Fatalf("%s, %s: the program answers %d, want that it goes across", w.name, tc.name, ret)
				}
			}
			says(0, size, ack, 10) // it is lost behind, and sent again
			says(size+tc.fin, tc.data, fin|ack, 8)
			if tc.sent > 0 {
				says(size, tc.sent, ack, 11)
			}
			for _, n := range tc.acked {
				c := crafted{from: w.c, to: w.bc, seq: sentByC, ack: sentByA + addSeq + size + n, flags: ack, window: 1}
				runWire(t, o, c.frame())
			}
			var flows [2]bpf.WireFlow
			for i := range keys {
				var err error
				if flows[i], err = o.Flow(&keys[i]); err != nil {
					t.Fatal(err)
				}
			}
			a, c := &flows[0], &flows[1]
			if ends := a.Fin != 0 && c.FinAcked != 0 && c.PeerFin&bpf.WireFinned != 0 && a.End == a.FinEnd; ends != tc.ends || ends != (a.Fin != 0) {
				t.Errorf("%s, %s: FIN %d, acknowledged %d, want %v", w.name, tc.name, a.Fin, c.FinAcked, tc.ends)
			}
			if want := sentByA + size + tc.fin + uint32(tc.data) + 1; tc.ends && a.FinEnd != want {
				t.Errorf("%s, %s: the FIN ends at %d, want %d", w.name, tc.name, a.FinEnd, want)
			}
			if tc.ends {
				continue
			}
			// The true one counts.
			says(uint32(size+max(tc.sent, int(tc.fin)+10)), 0, fin|ack, 12)
			if f, err := o.Flow(&keys[0]); err != nil || f.Fin != 1 {
				t.Errorf("%s, %s: %+v, %v: the FIN does not count", w.name, tc.name, f, err)
			}
		}
	}
}

// A clock counts for 24 days, as it does for a receiver: then it may have come half way round. What is not in
// line meanwhile, a probe of a sender that has nothing to say, makes it no younger, for a receiver neither.
func TestWireBeliefForgetsClocks(t *testing.T) {
	o := loadWire(t)
	w := &ways[0]
	const days = 24 * time.Hour
	for _, tc := range []struct {
		name     string
		silent   []time.Duration // with a probe in between
		believed bool
	}{
		{"not yet", []time.Duration{24*days - time.Minute}, false},
		{"silent", []time.Duration{24*days + time.Minute}, true},
		{"silent but for probes, not yet", []time.Duration{12 * days, 12*days - time.Minute}, false},
		{"silent but for probes", []time.Duration{12 * days, 12*days + time.Minute}, true},
	} {
		keys := w.spliced(t, o)
		look := func() bpf.WireFlow {
			t.Helper()
			f, err := o.Flow(&keys[0])
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
		says := func(seq uint32, size int, clock uint32) {
			t.Helper()
			c := crafted{
				from: w.a, to: w.ba, seq: sentByA + seq, ack: sentByC - addAck, flags: ack, window: 1,
				data: make([]byte, size), options: join([]byte{1, 1, 8, 10}, be32(clock, 0)),
			}
			runWire(t, o, c.frame())
		}
		const clock, half = 1000, 1 << 31
		says(0, 100, clock)
		heard := crafted{from: w.c, to: w.bc, seq: sentByC, ack: sentByA + addSeq + 100, flags: ack, window: 1}
		runWire(t, o, heard.frame())
		for i, silent := range tc.silent {
			if i > 0 {
				says(99, 0, clock+half/2)
			}
			edit(t, o, &keys[0], func(f *bpf.WireFlow) {
				f.LastSeen -= uint64(silent)
				f.ClockedAt -= uint32(silent >> 30)
			})
		}
		says(100, 100, clock+half+5)
		if f := look(); f.End != sentByA+200 != !tc.believed || (f.Tsval == clock+half+5) != tc.believed {
			t.Errorf("%s: end %d, clock %d, want that it is believed: %v", tc.name, f.End-sentByA, f.Tsval, tc.believed)
		}
		says(200, 100, clock+half+4-2)
		if f := look(); f.End-sentByA > 200 {
			t.Errorf("%s: a clock of the past counts again", tc.name)
		}
	}
}
