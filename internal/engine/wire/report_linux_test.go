package wire_test

import (
	"sync"
	"syscall"
	"testing"

	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/sys"
	"github.com/spliced-io/spliced/internal/testnet"
)

// More is reported than there is room for, because nobody reads: the pairs whose reports were
// lost are told of all the same, as soon as somebody does.
func TestLostReports(t *testing.T) {
	c := newChain(t)
	noisy, quiet := twoBenches(t, c)
	p := openPlane(t, c, wire.Config{}) // last: without a pair it soon ends
	reading, goOn := make(chan struct{}, 1), make(chan struct{})
	loud := consider(t, c, p, noisy, func() {
		select {
		case reading <- struct{}{}:
		default:
		}
		<-goOn
	})
	told := make(chan struct{}, 1000)
	silent := consider(t, c, p, quiet, func() {
		select {
		case told <- struct{}{}:
		default: // it is known
		}
	})
	read := sync.OnceFunc(func() { close(goOn) })
	defer read()
	for _, pair := range []*wire.Pair{loud, silent} {
		handOver(t, pair)
	}

	// Each segment beyond a new bar is reported. A report takes 48 bytes of 256 KiB.
	v := atRest(t, loud)
	local, peer := ends(noisy.client)
	packet := (&testnet.Segment{
		From: local, To: peer, Seq: v.Flows[0].End, Ack: v.Flows[0].Acked, Flags: testnet.ACK,
		Window: uint16(v.Flows[0].Window), Stamped: true, Stamp: v.Flows[0].Tsval, Data: []byte("x"),
	}).Packet()
	err := c.A.Do(func() error {
		fd, err := sys.RawSocket(syscall.AF_INET)
		if err != nil {
			return err
		}
		defer func() { _ = sys.Close(fd) }()
		for range 3 * (256 << 10) / 48 {
			if err := loud.Bar(); err != nil {
				return err
			}
			if err := sys.SendPacket(fd, packet, peer.Addr()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	<-reading

	if err := quiet.client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the FIN is acknowledged", func() bool {
		v, err := silent.Look()
		return err == nil && v.FIN[0]
	})
	// What was reported before, of the switch, is behind the reader, or lost.
	for len(told) > 0 {
		<-told
	}
	read()
	eventually(t, "it is told", func() bool { return len(told) > 0 })
	loud.Abort()
	silent.Abort()
}
