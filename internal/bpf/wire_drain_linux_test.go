package bpf_test

import (
	"encoding/binary"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/spliced-io/spliced/internal/bpf"
)

// tcpSum is what the one's complement sum over a segment of IPv4 is: 0xffff if its
// checksum is right.
func tcpSum(b []byte) uint32 {
	ip := b[14:]
	tcp := ip[20:]
	sum := uint32(6 + len(tcp))
	for _, part := range [][]byte{ip[12:20], tcp} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return sum
}

// A segment that is sent again while a pair drains, and starts before the cut, goes
// to the socket. A FIN that its sender has packed behind it must not: the socket would
// end the connection, and the pair with it.
func TestWireKeepsFINFromSocket(t *testing.T) {
	o := loadWire(t)
	a, ba, _, _ := pairOf(0)
	keys, sides := watched(t, o, 0)
	if err := o.Switch(&sides, true); err != nil {
		t.Fatal(err)
	}
	segment := frame(a, ba)
	tcp := segment[14+20:]
	binary.BigEndian.PutUint32(tcp[4:], ^uint32(0)) // two bytes before the cut
	tcp[13] |= 1
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(tcpSum(segment)))
	if tcpSum(segment) != 0xffff {
		t.Fatal("the test's own checksum is wrong")
	}
	out := make([]byte, len(segment))
	ret, err := o.WireIngress.Run(&ebpf.RunOptions{Data: segment, DataOut: out})
	if err != nil {
		t.Fatal(err)
	}
	if int32(ret) != -1 {
		t.Fatalf("the program answers %d, want that it passes", int32(ret))
	}
	if flags := out[14+20+13]; flags != 0x10 || tcpSum(out) != 0xffff {
		t.Errorf("flags %#x, sum %#x, want an ACK without FIN and a right checksum", flags, tcpSum(out))
	}
	if f, err := o.Flow(&keys[0]); err != nil || f.Fin != 0 {
		t.Errorf("%+v, %v: the FIN counts though nobody got it", f, err)
	}
	// Alone, or behind data after the cut, it goes across.
	binary.BigEndian.PutUint32(tcp[4:], 1)
	if ret, err = o.WireIngress.Run(&ebpf.RunOptions{Data: segment}); err != nil || ret != 7 {
		t.Fatalf("the program answers %d, %v, want a redirect", int32(ret), err)
	}
	if f, err := o.Flow(&keys[0]); err != nil || f.Fin != 1 || f.FinEnd != 66 {
		t.Errorf("%+v, %v: the FIN went across", f, err)
	}
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
