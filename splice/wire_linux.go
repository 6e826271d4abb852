package splice

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"github.com/spliced-io/spliced/internal/engine"
)

// AdoptWire makes sessions of the flows that an earlier process has left under
// the instance of p: they go on to count, keep their limits, and end. accepted is
// told of each, with the addresses of both peers, and returns who hears of its end;
// its Connected and Failed are not called. The error says what is missing, or
// that another process has the instance.
func AdoptWire(p WirePolicy, accepted func(s *Session, a, b netip.AddrPort) Handler) (int, error) {
	n, err := reactor.AdoptWire(p, func(s *engine.Session, a, b netip.AddrPort) engine.Handler {
		return accepted(&Session{carrier: loopSession{s}, own: true}, a, b)
	})
	if err != nil {
		return n, &Error{Op: "adopt", Err: fmt.Errorf("instance %s: %w", p.Instance, err)}
	}
	return n, nil
}

// Leave ends the session if its packets are spliced under the name of an
// instance: the flow goes on without this process, until the next of that name
// adopts it. Other sessions are not touched. It does not wait.
func (s *Session) Leave() {
	if l, ok := s.carrier.(loopSession); ok {
		l.Session.Leave()
	}
}

// DialControl is for [net.Dialer.Control], in a program that has sessions handed over to
// [EngineWire]. The kernel does not know the local ports that spliced connections have towards
// their servers. It may choose such a port for another connection to the same server, which
// then gets no answer. A dialer with this function keeps off them, as [Forward] does by itself.
// EADDRNOTAVAIL of the dial: sockets have all of the few ports that it was bounded to, by chance,
// or there is hardly one left; it can be tried again. Other networks than TCP are not touched.
func DialControl(network, address string, c syscall.RawConn) error {
	if !strings.HasPrefix(network, "tcp") {
		return nil
	}
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil //nolint:nilerr // what it is dialled with says it better
	}
	cerr := c.Control(func(fd uintptr) { err = reactor.KeepOff(int(fd), target) })
	if err == nil {
		return cerr
	}
	return os.NewSyscallError("setsockopt", err)
}

// ReservePorts has connections of this process to a target keep off these local ports until
// release is called: another process, which is about to hand its sessions over to this one,
// has them handed over to [EngineWire].
func ReservePorts(target netip.AddrPort, local []uint16) (release func(), err error) {
	release, err = reactor.Reserve(target, local)
	if err != nil {
		return nil, &Error{Op: "reserve ports", Err: err}
	}
	return release, nil
}
