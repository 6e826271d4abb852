package engine

import (
	"net/netip"
	"sync"
	"syscall"

	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/sys"
)

// The kernel does not know the local ports of spliced flows, and may give one to a new
// connection to the same target. Its SYN is not answered then: the target takes it for one of
// the flow. So whoever connects in this process keeps off them, whatever engine is to carry it.

// portAttempts is how many ranges of local ports are tried that other sockets may have.
const portAttempts = 16

// connect connects a socket by a local port that no spliced flow to the target has.
// EADDRNOTAVAIL: there is hardly one left. EAGAIN: to be tried again with another socket.
func (l *loop) connect(fd int, to *sys.Address) error {
	if to.Family() == syscall.AF_UNIX {
		return sys.Connect(fd, to)
	}
	planes, target := &l.reactor.wire, to.AddrPort()
	for range portAttempts {
		chosen, err := planes.keepOff(fd, target)
		if err != nil {
			return err
		}
		err = sys.Connect(fd, to)
		if chosen && err == syscall.EADDRNOTAVAIL {
			continue
		}
		if (err == nil || err == syscall.EINPROGRESS) && planes.met(fd, target) {
			return syscall.EAGAIN
		}
		return err
	}
	return syscall.EADDRNOTAVAIL
}

// KeepOff has a TCP socket that is to be connected to a target take a local port that no
// spliced flow to it has. EADDRNOTAVAIL: there is hardly one left.
func (r *Reactor) KeepOff(fd int, target netip.AddrPort) error {
	_, err := r.wire.keepOff(fd, target)
	return err
}

// keepOff says whether it had to choose.
func (w *wirePlanes) keepOff(fd int, target netip.AddrPort) (chosen bool, err error) {
	low, high, ok := w.ports(target)
	switch {
	case !ok:
		return false, syscall.EADDRNOTAVAIL
	case low == 0:
		return false, nil
	}
	return true, sys.SetLocalPorts(fd, low, high)
}

// Reserve has connections to a target keep off these local ports until release is
// called: flows of another process have them.
func (r *Reactor) Reserve(target netip.AddrPort, local []uint16) (release func(), err error) {
	if err := r.wire.reserved.Take(target, local); err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() { r.wire.reserved.Leave(target, local) }), nil
}

// A keeper knows ports that are not to be used.
type keeper interface {
	Ports(target netip.AddrPort) (low, high uint16, ok bool)
	Clear(target netip.AddrPort, low, high uint16) bool
}

// keepers calls f for each that there is.
func (w *wirePlanes) keepers(f func(keeper)) {
	w.each(func(p *wire.Plane) { f(p) })
	f(&w.reserved)
}

// ports chooses as [wire.Plane.Ports] does, for the flows of all planes.
func (w *wirePlanes) ports(target netip.AddrPort) (low, high uint16, ok bool) {
	for range portAttempts {
		low, high, ok = 0, 0, true
		clear := true
		w.keepers(func(p keeper) {
			if low == 0 {
				var found bool
				low, high, found = p.Ports(target)
				ok = ok && found
			} else {
				clear = clear && p.Clear(target, low, high)
			}
		})
		if !ok || clear {
			return low, high, ok
		}
	}
	return 0, 0, false
}

// met says whether a spliced flow has got the local port of a connection that was just begun:
// its sockets went between the choice and connect(2), while this thread slept.
func (w *wirePlanes) met(fd int, target netip.AddrPort) (met bool) {
	var local netip.AddrPort
	w.keepers(func(p keeper) {
		if !local.IsValid() {
			local, _ = sys.LocalAddr(fd) // can't fail: it is a socket
		}
		met = met || !p.Clear(target, local.Port(), local.Port())
	})
	return met
}
