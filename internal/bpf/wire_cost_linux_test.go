package bpf_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/spliced-io/spliced/internal/bpf"
	"github.com/spliced-io/spliced/internal/testnet"
)

// The i-th pair's addresses: A's and B's on the one side, B's and C's on the other.
func pairOf(i int) (a, ba, bc, c netip.AddrPort) {
	client := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
	port := uint16(1024 + i>>16)
	return netip.AddrPortFrom(client, port), netip.MustParseAddrPort("10.2.0.1:80"),
		netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 3, byte(i >> 8), byte(i)}), port), netip.MustParseAddrPort("10.4.0.1:80")
}

// notLoopback is an interface that need not be there. All packets of a test run are the same one, said again and again: to
// a peer on this machine that is looked at twice.
const notLoopback = 2

func insertPair(t *testing.T, o *bpf.WireObjects, i int) {
	t.Helper()
	a, ba, bc, c := pairOf(i)
	there, back := bpf.WireKeyOf(a, ba), bpf.WireKeyOf(c, bc)
	for k, to := range map[bpf.WireKey]bpf.WireKey{there: back.Reverse(), back: there.Reverse()} {
		f := bpf.WireFlow{State: bpf.WireSpliced, End: 1} // where frame is
		f.Rewrite.To, f.Rewrite.Ifindex, f.Rewrite.SeqAdd, f.Rewrite.AckAdd = to, notLoopback, 1000, 2000
		if err := o.Insert(&k, &f); err != nil {
			t.Fatal(err)
		}
	}
}

// frame is a segment with timestamps and 64 bytes of data.
func frame(from, to netip.AddrPort) []byte {
	b := make([]byte, 14+20+32+64)
	binary.BigEndian.PutUint16(b[12:], 0x0800)
	ip := b[14:]
	ip[0], ip[8], ip[9] = 0x45, 64, 6
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	copy(ip[12:], from.Addr().AsSlice())
	copy(ip[16:], to.Addr().AsSlice())
	tcp := ip[20:]
	binary.BigEndian.PutUint16(tcp, from.Port())
	binary.BigEndian.PutUint16(tcp[2:], to.Port())
	binary.BigEndian.PutUint32(tcp[4:], 1)
	tcp[12], tcp[13] = 8<<4, 0x10
	copy(tcp[20:], []byte{1, 1, 8, 10})
	return b
}

func mapMemory(t *testing.T, m *ebpf.Map) int {
	t.Helper()
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", m.FD()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(info)) {
		if v, ok := strings.CutPrefix(line, "memlock:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(v))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("fdinfo has no memlock")
	return 0
}

// slabs is the kernel's memory in objects of the sizes that maps take: those of the
// whole machine.
func slabs(t *testing.T) (n int) {
	t.Helper()
	info, err := os.ReadFile("/proc/slabinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(info)) {
		var active, total, size int
		if _, rest, ok := strings.Cut(line, " "); ok && strings.HasPrefix(line, "kmalloc-") {
			if _, err := fmt.Sscan(rest, &active, &total, &size); err != nil {
				t.Fatal(err)
			}
			n += total * size
		}
	}
	return n
}

// What a packet costs in the program, with few and with many flows, and what one
// costs that is none of its own. The entries are made up; SPLICED_FLOWS says how many
// pairs there are, 1,000 else.
func TestWireCost(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	many := 1000
	if n, err := strconv.Atoi(os.Getenv("SPLICED_FLOWS")); err == nil {
		many = n
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Fatal(err)
	}
	var o bpf.WireObjects
	if err := bpf.LoadWireObjects(&o, nil); err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// The cost of one packet of each of many flows, as the kernel measures it: an
	// empty cache is part of it.
	cost := func(pairs int, want uint32, of func(i int) []byte) time.Duration {
		const runs = 20000
		var total time.Duration
		for range runs {
			ret, d, err := o.WireIngress.Benchmark(of(rand.IntN(pairs)), 1, nil)
			if err != nil {
				t.Fatal(err)
			}
			if ret != want {
				t.Fatalf("the program answers %d, want %d", int32(ret), int32(want))
			}
			total += d
		}
		return total / runs
	}
	const next, redirect = ^uint32(0), 7
	ours := func(i int) []byte { a, ba, _, _ := pairOf(i); return frame(a, ba) }
	others := func(i int) []byte { _, _, bc, c := pairOf(i); return frame(bc, c) }
	before, slabsBefore := mapMemory(t, o.Flows), slabs(t)
	const few = 10
	for i := range few {
		insertPair(t, &o, i)
	}
	t.Logf("%d pairs: %v a packet, %v one of another connection", few, cost(few, redirect, ours), cost(few, next, others))
	for i := few; i < many; i++ {
		insertPair(t, &o, i)
	}
	t.Logf("%d pairs: %v a packet, %v one of another connection", many, cost(many, redirect, ours), cost(many, next, others))
	t.Logf("%d bytes a pair in the table; of slabs, by what the machine has more of them, %d", (mapMemory(t, o.Flows)-before)/many, (slabs(t)-slabsBefore)/many)
}
