package splice

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"github.com/spliced-io/spliced/internal/engine"
)

// AdoptWire takes the instance of p, and makes sessions of the flows that an earlier process has
// left under its name and that are not this one's already: they go on to count, keep their limits,
// and end. It returns how many there were. The error says what is missing, or that another process
// has the instance.
func AdoptWire(p WirePolicy, a Adoption) (int, error) {
	n, err := reactor.AdoptWire(p, engine.Adoption{
		Lives: a.Lives, Except: a.Except,
		Accepted: func(s *engine.Session, f Flow) (engine.Handler, *Past) {
			return a.Accepted(&Session{carrier: loopSession{s}, own: true}, f)
		},
	})
	return n, instanceError("adopt", p, err)
}

// KeepWire loads the program of [EngineWire], which takes tenths of a second of a busy processor, and
// keeps it loaded until release is called: so the first sessions need not wait for it. Without it the program
// is loaded when a session wants it, and lets go of soon after the last. The error says what is missing; then
// there is nothing to release, and release does nothing.
func KeepWire(p WirePolicy) (release func(), err error) {
	release, err = reactor.KeepWire(p)
	if err != nil {
		err = &Error{Op: "load wire", Err: err}
	}
	return release, err
}

// PrepareWire gets everything ready to adopt the flows of an instance which another process has
// for now: [AdoptWire] takes the instance then within milliseconds. Sessions of this process wait
// with their hand-overs until that was called.
func PrepareWire(p WirePolicy) (WireTable, error) {
	t, err := reactor.PrepareWire(p)
	return t, instanceError("prepare to adopt", p, err)
}

// WireTableOf is the table of the instance of p, if this process has it.
func WireTableOf(p WirePolicy) (WireTable, error) {
	t, err := reactor.WireTable(p)
	return t, instanceError("look at", p, err)
}

// LeaveWire lets another process have the instance of p: it is told which flows it must not adopt,
// since they are this process's yet, and end here. Those of sessions that were told to
// [Session.Leave] before go on by themselves until that process adopts them. Sessions that are not
// handed over yet wait until [AdoptWire] is called again.
func LeaveWire(p WirePolicy) []Flow { return reactor.LeaveWire(p) }

func instanceError(op string, p WirePolicy, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, Err: fmt.Errorf("instance %s: %w", p.Instance, err)}
}

// Flow names the session's flow, if its packets are spliced under the name of an instance and
// nothing else is needed for that: [Session.Leave] has it go on without this process, and the
// [Past] is for who adopts it.
func (s *Session) Flow() (Flow, Past, bool) {
	if l, ok := s.carrier.(loopSession); ok {
		return l.Session.Flow()
	}
	return Flow{}, Past{}, false
}

// Note is for [Adoption.Accepted]: what the process that has had the session has said of it by [Note] or
// its [Handler]; "" if that is nothing, or not known. It is as that process, or whoever may write to the
// instance, has left it: to be checked like anything that comes from outside.
func (s *Session) Note() string {
	if l, ok := s.carrier.(loopSession); ok {
		return l.Session.Note()
	}
	return ""
}

// Leave ends the session if its packets are spliced under the name of an
// instance, or as soon as they are: the flow goes on without this process, until the next of
// that name adopts it. Until then nothing changes. It does not wait.
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
