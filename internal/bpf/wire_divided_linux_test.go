package bpf_test

import (
	"bytes"
	"net/netip"
	"syscall"
	"testing"

	"github.com/cilium/ebpf/ringbuf"

	"github.com/spliced-io/spliced/internal/bpf"
)

// part makes a packet the first part of one that was divided.
func (c *crafted) part() {
	if c.from.Addr().Is4() {
		c.fragment = 0x2000
	} else {
		c.extensions = []byte{44, 6, 0, 0, 1, 0, 0, 0, 9}
	}
}

// Of a segment of a spliced pair that comes in parts the first is dropped, and user space told, once. What need not be of the pair,
// and what the stack has to answer, is the stack's. A pair is not switched after that.
func TestWireDivided(t *testing.T) {
	o := loadWire(t)
	reader, err := ringbuf.NewReader(o.Ended)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	told := func() (n int) {
		for ; reader.AvailableBytes() > 0; n++ {
			if _, err := reader.Read(); err != nil {
				t.Fatal(err)
			}
		}
		return n
	}
	for _, tc := range []struct {
		name   string
		flow   func(*bpf.WireFlow)
		change func(*crafted)
		taken  bool // by the program
		noted  bool
	}{
		{"in line", func(*bpf.WireFlow) {}, func(*crafted) {}, true, true},
		{"sent again", func(*bpf.WireFlow) {}, func(c *crafted) { c.seq -= 1000 }, true, true},
		{"numbers of nobody", func(*bpf.WireFlow) {}, func(c *crafted) { c.seq += 1 << 25 }, false, false},
		{"another port", func(*bpf.WireFlow) {}, func(c *crafted) { c.to = netip.AddrPortFrom(c.to.Addr(), 82) }, false, false},
		{"with less than a number", func(*bpf.WireFlow) {}, func(c *crafted) { c.data = nil }, false, false},
		{"while it drains", func(f *bpf.WireFlow) { f.State = bpf.WireDraining }, func(*crafted) {}, false, true},
		{"after its end", func(f *bpf.WireFlow) { f.Verdict, f.Over = bpf.WireEndedFIN, 1 }, func(*crafted) {}, false, false},
		{"ended by hand", func(f *bpf.WireFlow) { f.Verdict = bpf.WireEndedHand }, func(*crafted) {}, false, false},
	} {
		for i := range ways {
			w := &ways[i]
			keys := w.spliced(t, o)
			edit(t, o, &keys[0], tc.flow)
			told()
			c := crafted{from: w.a, to: w.ba, seq: sentByA, ack: sentByC - addAck, flags: ack, window: 1, data: make([]byte, 100)}
			c.part()
			tc.change(&c)
			want := int32(wireNext)
			if tc.taken {
				want = wireDrop
			}
			for range 3 {
				in := c.frame()
				if len(c.data) == 0 {
					in = in[:len(in)-13]
				}
				ret, out := runWire(t, o, bytes.Clone(in))
				if ret != want || !bytes.Equal(in, out) {
					t.Errorf("%s, %s: the program answers %d, want %d, and makes\n%x of\n%x", w.name, tc.name, ret, want, out, in)
				}
			}
			n := 0
			if tc.taken {
				n = 1
			}
			if is := told(); is != n {
				t.Errorf("%s, %s: told %d times, want %d", w.name, tc.name, is, n)
			}
			if f, err := o.Flow(&keys[0]); err != nil || f.Divided != 0 != tc.noted || f.Packets > 0 || f.End != sentByA {
				t.Errorf("%s, %s: %+v, %v", w.name, tc.name, f, err)
			}
		}
	}
	for i := range ways {
		w := &ways[i]
		for seq, want := range map[uint32]error{100: syscall.EMSGSIZE, 1 << 25: nil} {
			part := crafted{from: w.a, to: w.ba, seq: seq, flags: ack}
			part.part()
			if err := w.switchAfter(t, o, part, crafted{from: w.a, to: w.ba}); err != want {
				t.Errorf("%s, at %d: switching says %v, want %v", w.name, seq, err, want)
			}
		}
	}
}
