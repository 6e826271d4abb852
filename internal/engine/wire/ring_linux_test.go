package wire_test

import (
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/testnet"
)

// Two connections of B with itself, spliced by two programs that don't know of each other, lead to
// each other: no end is left that would take a packet out. It has so many hops, and no more.
func TestRingOfTwo(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "::1"} {
		t.Run(addr, func(t *testing.T) {
			c := newChain(t)
			dialed1, accepted1 := connect(t, c.B, c.B, addr)
			dialed2, accepted2 := connect(t, c.B, c.B, addr)
			first := openPlane(t, c, wire.Config{Instance: "first", Root: testnet.BPFFS(t)})
			second := openPlane(t, c, wire.Config{Instance: "second", Root: testnet.BPFFS(t)})
			one := consider(t, c, first, &bench{a: accepted1, b: dialed2}, func() {})
			two := consider(t, c, second, &bench{a: accepted2, b: dialed1}, func() {})
			handOver(t, one)
			carry(t, accepted2, dialed1, 1000) // by way of the first
			handOver(t, two)

			// What is said at the end of the hand-over goes round now.
			var count, last [2]uint64
			still := 0
			for end := time.Now().Add(patience); still < 20; time.Sleep(10 * time.Millisecond) {
				v, err := two.Look()
				if err != nil {
					t.Fatal(err)
				}
				count = [2]uint64{v.Flows[0].Packets, v.Flows[1].Packets}
				if still++; count != last {
					still, last = 0, count
				}
				if time.Now().After(end) {
					t.Fatalf("%d packets after %v, and no end", count, patience)
				}
			}
			v, err := two.Look()
			if err != nil {
				t.Fatal(err)
			}
			w, err := one.Look()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d packets", count)
			if spent := v.Flows[0].Errors + v.Flows[1].Errors + w.Flows[0].Errors + w.Flows[1].Errors; spent == 0 || count[0]+count[1] < 32 {
				t.Errorf("%d packets, %d of them in their last hop: nothing went round", count, spent)
			}
			one.Abort()
			two.Abort()
		})
	}
}
