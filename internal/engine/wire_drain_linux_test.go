package engine_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/engine"
	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/testnet"
)

// A drainingOne is a connection whose pair drains until hear is called: the server has not got what
// the client has sent. What goes across arrives.
type drainingOne struct {
	spec           relaySpec
	relay          *relay
	client, server *net.TCPConn
	chain          *testnet.Chain
	data           []byte // of the client
	sent           int64  // by the server, and acknowledged
}

func drainOne(t *testing.T, c *testnet.Chain, spec relaySpec) *drainingOne {
	t.Helper()
	testnet.Need(t, "peers")
	d := &drainingOne{chain: c, data: make([]byte, 2000)}
	_, _ = rand.NewChaCha8([32]byte{}).Read(d.data)
	conns, over := make(chan *net.TCPConn, 1), make(chan struct{})
	addr := serve(t, c.C, testnet.AddrC, func(conn *net.TCPConn) {
		conns <- conn
		<-over
	})
	t.Cleanup(func() { close(over) }) // first: serve waits
	spec.Listen, spec.Target, spec.Kind = testnet.AddrBA+":0", addr, uint8(engine.Auto)
	spec.Policy.Upgrade, spec.Policy.AfterBytes, spec.Policy.AfterAge = true, int64(len(d.data)), time.Hour
	d.spec, d.relay = spec, startRelay(t, c.B, spec)
	if spec.Policy.Instance != "" {
		d.relay.adopted(t) // it says so first
	}
	d.client, d.server = dialRelay(t, c.A, d.relay), <-conns
	// What the socket of B delivers is lost from here on. What goes across has made a hop.
	err := c.C.Run(t.Context(), `
		table inet deaf {
			chain arriving {
				type filter hook prerouting priority -300; policy accept;
				ip ttl 64 meta l4proto tcp meta length > 200 counter drop
			}
		}`, "nft", "-f", "-")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.client.Write(d.data); err != nil {
		t.Fatal(err)
	}
	within(t, wirePatience, "switched", func() bool {
		d.say(t) // it has to be seen
		return d.relay.stats(t).Wire.Switched
	})
	for range 10 {
		d.say(t)
	}
	within(t, wirePatience, "all is acknowledged that went across", func() bool { return d.relay.stats(t).BToA == d.sent })
	if st := d.relay.stats(t); st.Engine == "wire" || st.Wire.Packets[1] == 0 {
		t.Fatalf("%+v, want that it drains, and that packets of the server have gone across", st)
	}
	return d
}

// say has the client get a message of the server.
func (d *drainingOne) say(t *testing.T) {
	t.Helper()
	var b [64]byte
	_, err := d.server.Write(b[:])
	if err == nil {
		_, err = io.ReadFull(d.client, b[:])
	}
	if err != nil {
		t.Fatal(err)
	}
	d.sent += int64(len(b))
}

// hear lets the server get all.
func (d *drainingOne) hear(t *testing.T) {
	t.Helper()
	if err := d.chain.C.Run(context.Background(), "delete table inet deaf\n", "nft", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

// A client resets its connection while the relay's sockets still have something to deliver. They deliver it before the
// server gets a reset, and what has gone across to the client counts, as before.
func TestWireResetWhileDraining(t *testing.T) {
	d := drainOne(t, wireChain(t), relaySpec{})
	_ = d.client.SetLinger(0)
	d.client.Close()
	within(t, wirePatience, "the reset is noticed", func() bool {
		st := d.relay.stats(t)
		if !st.Live {
			t.Fatalf("%+v, want that the server gets all before", st)
		}
		return st.ReasonA == "reset-by-source"
	})
	d.hear(t)
	got := make([]byte, len(d.data)+1)
	_ = d.server.SetDeadline(time.Now().Add(3 * wirePatience)) // its sender waits ever longer
	n, err := io.ReadFull(d.server, got)
	if !bytes.Equal(got[:n], d.data) || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the server has got %d bytes and %v, want %d and a reset", n, err, len(d.data))
	}
	res := d.relay.result(t)
	if res.AToB != int64(len(d.data)) || res.BToA != d.sent || res.ReasonA != "reset-by-source" || res.ReasonB != "reset-by-drain" || res.Wire.Packets[1] == 0 {
		t.Errorf("%+v, want %d and %d bytes, and a reset of the client's", res, len(d.data), d.sent)
	}
}

// What goes across while a pair drains is progress to an idle limit, however long that takes. Where the machine was so busy
// that nothing went across for half the limit, nothing is shown: then it is done again.
func TestWireIdleLimitWhileDraining(t *testing.T) {
	const tries = 3
	for i := range tries {
		shown := false
		t.Run(strconv.Itoa(i), func(t *testing.T) { shown = drainsBeyondItsLimit(t) })
		if shown || t.Failed() {
			return
		}
	}
	t.Errorf("%d times the machine was too busy for a message in each second", tries)
}

// drainsBeyondItsLimit is false if nothing went across for half of it.
func drainsBeyondItsLimit(t *testing.T) bool {
	const idle = 2 * time.Second
	d := drainOne(t, wireChain(t), relaySpec{Limits: engine.Limits{Idle: idle}})
	longest := time.Duration(0)
	for began := time.Now(); time.Since(began) < 2*idle; {
		at := time.Now()
		d.say(t)
		time.Sleep(20 * time.Millisecond)
		longest = max(longest, time.Since(at))
	}
	if longest > idle/2 {
		return false
	}
	if st := d.relay.stats(t); !st.Live || st.ReasonA != "running" || st.Engine == "wire" {
		t.Errorf("%+v, want that it drains", st)
	}
	return true
}

// A process is killed while a pair drains. Its sockets' last words are old to a client that has heard of the server since:
// the next process of the instance has both sides know.
func TestWireKilledWhileDraining(t *testing.T) {
	policy := engine.WirePolicy{Instance: "test", Root: testnet.BPFFS(t)}
	d := drainOne(t, wireChain(t), relaySpec{Policy: policy})
	ends := []*net.TCPConn{d.client, d.server}
	for _, c := range ends { // they are not to find out by themselves
		if err := errors.Join(c.SetKeepAlive(false), c.SetReadDeadline(time.Now().Add(wirePatience))); err != nil {
			t.Fatal(err)
		}
	}
	d.relay.kill(t)
	r := startRelay(t, d.chain.B, d.spec)
	if n := r.adopted(t); n != 0 {
		t.Errorf("adopted %d pairs that lack what their sockets had to deliver", n)
	}
	for i, c := range ends {
		if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("side %d has got %d bytes and %v, want a reset", i, n, err)
		}
	}
	r.end()
	if err := wire.Purge(wire.Config{Instance: policy.Instance, Root: policy.Root}); err != nil {
		t.Error(err)
	}
}
