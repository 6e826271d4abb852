package wire_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/testnet"
)

// deaf loses what arrives in a namespace, but for segments without data to speak of. It
// lasts until hear is called.
func deaf(t *testing.T, ns *testnet.Namespace) (hear func()) {
	t.Helper()
	run := func(rules string) {
		t.Helper()
		if err := ns.Run(context.Background(), rules, "nft", "-f", "-"); err != nil {
			t.Fatal(err)
		}
	}
	run(`
		table inet deaf {
			chain arriving {
				type filter hook prerouting priority -300; policy accept;
				meta l4proto tcp meta length > 500 counter drop
			}
		}`)
	return func() { run("delete table inet deaf\n") }
}

// A socket has lost all that it has to deliver at the switch, and the other direction
// moves on meanwhile: what the socket says is older then than what its peer has been told,
// who accepts its data and does not take note of its clock. The socket is not to
// take that for a sign that its segments are needless, nor for a long way.
func TestDrainAfterLoss(t *testing.T) {
	for _, pl := range places()[:2] {
		t.Run(pl.name, func(t *testing.T) {
			c := newChain(t)
			testnet.Need(t, "peers")
			b := pl.open(t, c)
			p := openPlane(t, c, wire.Config{}) // last: without a pair it soon ends
			pair := consider(t, c, p, b, func() {})
			eventually(t, "learned", func() bool { return pair.Learn([2]int{}) == nil })

			// Twenty segments: more than a socket sends at first.
			data := make([]byte, 20*1388)
			_, _ = rand.NewChaCha8([32]byte{}).Read(data)
			if _, err := b.client.Write(data); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(b.a, make([]byte, len(data))); err != nil {
				t.Fatal(err)
			}
			hear := deaf(t, c.C)
			if _, err := b.b.Write(data); err != nil {
				t.Fatal(err)
			}
			if err := pair.Switch(true); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				carry(t, b.server, b.client, 100)
			}
			eventually(t, "the client has acknowledged it", func() bool {
				v, err := pair.Look()
				return err == nil && v.Delivered[1] == 300
			})
			// Behind what is missing, so that the server says so. The program lets it
			// across, and C loses it: its sender sends it again.
			if _, err := b.client.Write(data[:1000]); err != nil {
				t.Fatal(err)
			}
			if drained, err := pair.Drained(); drained || err != nil {
				t.Fatalf("drained: %v, %v, before anything was delivered", drained, err)
			}
			hear()
			began := time.Now()
			eventually(t, "drained", func() bool {
				drained, err := pair.Drained()
				if err != nil {
					t.Fatal(err)
				}
				return drained
			})
			t.Logf("drained after %v", time.Since(began))
			if err := pair.Settle(wire.Meta{}); err != nil {
				t.Fatal(err)
			}
			pair.Dissolve()
			got := make([]byte, len(data)+1000)
			_ = b.server.SetReadDeadline(time.Now().Add(patience))
			if n, err := io.ReadFull(b.server, got); err != nil {
				t.Fatalf("%d bytes, %v", n, err)
			}
			if want := append(bytes.Clone(data), data[:1000]...); !bytes.Equal(got, want) {
				t.Error("bytes differ")
			}
			carry(t, b.client, b.server, 1<<20)
			carry(t, b.server, b.client, 1<<20)
			pair.Abort()
		})
	}
}
