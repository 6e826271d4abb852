package wire

import (
	"testing"

	"github.com/spliced-io/spliced/internal/bpf"
)

// The program notes what is acknowledged in steps: whoever looks in between must not
// count a FIN as a byte, nor bytes twice.
func TestDelivered(t *testing.T) {
	const from = 1<<32 - 50 // numbers wrap
	whole := bpf.WireFlow{From: from}
	for _, tc := range []struct {
		name   string
		change func(f *bpf.WireFlow)
		bytes  int64
		fin    bool
	}{
		{"nothing", func(*bpf.WireFlow) {}, 0, false},
		{"100 bytes", func(f *bpf.WireFlow) { f.Acked, f.AckedBytes = 50, 100 }, 100, false},
		{"noted, not counted", func(f *bpf.WireFlow) { f.Acked = 50 }, 100, false},
		{"counted, the note read before", func(f *bpf.WireFlow) { f.AckedBytes = 100 }, 0, false},
		{"6 GiB", func(f *bpf.WireFlow) { f.Acked, f.AckedBytes = f.From+1<<31, 6<<30 }, 6 << 30, false},
		{"FIN under way", func(f *bpf.WireFlow) { f.Acked, f.AckedBytes, f.PeerFin = 50, 100, bpf.WireFinned|51 }, 100, false},
		{"perhaps a FIN", func(f *bpf.WireFlow) { f.Acked, f.AckedBytes, f.PeerFin = 51, 101, bpf.WireFinned<<1|51 }, 101, false},
		{"FIN noted", func(f *bpf.WireFlow) { f.Acked, f.AckedBytes, f.PeerFin = 51, 100, bpf.WireFinned|51 }, 100, true},
		{"FIN counted, not yet flagged", func(f *bpf.WireFlow) { f.Acked, f.AckedBytes, f.PeerFin = 51, 101, bpf.WireFinned|51 }, 100, true},
		{"FIN flagged", func(f *bpf.WireFlow) {
			f.Acked, f.AckedBytes, f.PeerFin, f.FinAcked = 51, 101, bpf.WireFinned|51, 1
		}, 100, true},
	} {
		f := whole
		f.Acked = from
		tc.change(&f)
		if n, fin := delivered(&f); n != tc.bytes || fin != tc.fin {
			t.Errorf("%s: %d bytes, FIN %v, want %d, %v", tc.name, n, fin, tc.bytes, tc.fin)
		}
	}
}

// The sockets are done when their bytes are acknowledged, however much went across behind them.
func TestAcknowledged(t *testing.T) {
	const from, undelivered = 1<<32 - 50, 100 // numbers wrap
	for _, tc := range []struct {
		bytes int64
		fin   uint32 // bytes and FIN
		want  bool
	}{
		{0, 0, false},
		{undelivered - 1, 0, false},
		{undelivered, 0, true},
		{undelivered, 1, true},
		{undelivered + 1, 0, true},
		{1<<31 + 1, 0, true},
		{1 << 32, 0, true},
		{1<<32 + 1<<31 + undelivered, 0, true},
	} {
		f := bpf.WireFlow{From: from, AckedBytes: uint64(tc.bytes) + uint64(tc.fin)}
		if f.Acked = from + uint32(f.AckedBytes); tc.fin > 0 {
			f.PeerFin = bpf.WireFinned | uint64(f.Acked)
		}
		const end = (from + undelivered) & 0xffffffff
		if is := acknowledged(&f, end); is != tc.want {
			t.Errorf("%d bytes: %v, want %v", tc.bytes, is, tc.want)
		}
	}
}

// A receiver can acknowledge what the program has not believed: it was sent, and so counts as sent. Else the pair would never
// be at rest, and a RST be made with a number of the past.
func TestViewOfUnseen(t *testing.T) {
	const add, end = 1000, 1<<32 - 11 // numbers wrap
	var v View
	v.Flows[0] = bpf.WireFlow{End: end, Acked: 5000}
	v.Flows[1] = bpf.WireFlow{End: 5000, From: (end + add) & 0xffffffff}
	v.Flows[1].Rewrite.AckAdd = -add & 0xffffffff
	v.Flows[1].Acked, v.Flows[1].AckedBytes = v.Flows[1].From+100, 100
	v.interpret()
	if end := v.Flows[0].End; end != 89 || !v.Resting() || v.Delivered[0] != 100 || v.Crossed[0] != 100 {
		t.Errorf("sent up to %d, %d bytes delivered of %d, at rest: %v", end, v.Delivered[0], v.Crossed[0], v.Resting())
	}
}
