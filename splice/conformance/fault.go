//go:build linux

package conformance

import (
	"syscall"
	"testing"
)

// fault: one bad connection disturbs no other. What needs a process of its own
// is in Process.
func fault() []scenario {
	return []scenario{
		{name: "resets-beside-a-stream", plain: true, run: faultResets},
		{name: "stalled-beside-busy", plain: true, jam: true, run: faultStalled},
		{name: "refused-beside-busy", plain: true, run: faultRefused},
	}
}

func faultResets(t *testing.T, p *place) {
	const n = 8 << 20
	good := p.link(t).forward()
	good.Start()
	pump, sink := good.pump(0, n, 64<<10), good.sink(0)
	for range 20 {
		bad := p.link(t).forward()
		bad.Start()
		bad.send(0, 1000)
		bad.receive(0, 1000)
		bad.abort(0)
		bad.Wait()
		bad.Release()
	}
	pump.wait()
	sink.beyond(n)
	sink.right()
	good.carried(n)
}

func faultStalled(t *testing.T, p *place) {
	for range 6 { // more than there are event loops on a small machine
		w := p.link(t).forward()
		w.Start()
		w.pump(0, far, 256<<10).blocked()
	}
	w := p.link(t).forward()
	w.Start()
	w.pingPong(0, 100, 64)
	w.carry(6400, 8<<20, 64<<10)
}

func faultRefused(t *testing.T, p *place) {
	const n = 8 << 20
	good := p.link(t).forward()
	good.Start()
	pump, sink := good.pump(0, n, 64<<10), good.sink(0)
	for range 20 {
		l := p.link(t)
		l.refused(l.relayA, l.relayA, syscall.EINVAL)
		l.Release()
	}
	pump.wait()
	sink.beyond(n)
	good.carried(n)
}
