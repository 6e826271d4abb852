package sockmap

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cilium/ebpf"

	"github.com/spliced-io/spliced/internal/bpf"
	"github.com/spliced-io/spliced/internal/sys"
)

// Slack is how much of a limit of bytes must be left for segments to be
// redirected: more than a receive buffer, which is what may still be passed to
// user space when the limit comes near.
const Slack = 32 << 20

// A Socket is one end of a pair.
type Socket struct {
	FD     int
	Cookie uint64
}

// A Pair is two sockets in the maps. One goroutine owns it, but for what is
// said to be for anybody.
type Pair struct {
	plane   *Plane
	index   uint32
	sockets [2]Socket
	lanes   [2]Lane
	entered [2]bool // in members

	filtered [2]bool // the filter is on the socket
}

// Enter puts two connected sockets into the maps: from then on the bytes of
// sockets[i] are redirected to the other, or passed. first[i] bytes of it were
// read before and are to be forwarded first; limit[i] bytes may cross, 0 is no
// limit. err says more about a refusal where there is more to say. A refusal
// with a pair came half-way: one of the sockets was in, so the pair has to leave
// and to be forgotten like any other.
func (p *Plane) Enter(sockets [2]Socket, first, limit [2]int64) (*Pair, Refusal, error) {
	for i, s := range sockets {
		if why := p.suits(s.FD); why != 0 {
			return nil, why, nil
		}
		if limit[i] != 0 && limit[i]-first[i] <= Slack {
			return nil, Limited, nil
		}
	}
	index, ok := p.take()
	if !ok {
		return nil, Full, nil
	}
	pair := &Pair{plane: p, index: index, sockets: sockets}
	for i := range pair.lanes {
		l := &pair.lanes[i]
		l.shared = p.lane(2*index + uint32(i))
		*l.shared = bpf.SockmapLane{Budget: math.MaxUint64, Passed: uint64(first[i]), Taken: uint64(first[i]), Open: 1}
		if limit[i] != 0 {
			l.shared.Budget = uint64(limit[i] - Slack)
		}
		l.taken = uint64(first[i])
		n, ok := consumed(sockets[i].FD)
		l.received, l.audited = n-first[i], ok
		l.plane, l.route = p, bpf.SockmapRoute{Drain: sockets[1-i].Cookie, Lane: 2*index + uint32(i)}
	}
	why, err := pair.insert()
	if why != 0 && !pair.lanes[0].sourced {
		_ = pair.Forget(false)
		return nil, why, err
	}
	return pair, why, err
}

// suits says why a socket can't be in a sockmap, as far as can be seen.
func (p *Plane) suits(fd int) Refusal {
	family, err := sys.LocalFamily(fd)
	if err != nil || family != syscall.AF_INET && family != syscall.AF_INET6 {
		return NotTCP
	}
	switch protocol, err := sys.SocketProtocol(fd); {
	case err != nil:
		return NotTCP
	case protocol == sys.ProtocolMPTCP:
		return MPTCP
	case protocol != syscall.IPPROTO_TCP:
		return NotTCP
	}
	if netns, err := sys.NetnsCookie(fd); err != nil || netns != p.netns {
		return Namespace
	}
	if sys.HasULP(fd) {
		return ULP
	}
	if sys.HasFilter(fd) {
		return Foreign
	}
	return 0
}

func (p *Pair) insert() (Refusal, error) {
	o := &p.plane.objects
	for i, s := range p.sockets {
		if err := o.Members.Put(s.Cookie, uint64(s.FD)); err != nil {
			return refusalOf(err), fmt.Errorf("enter a socket: %w", err)
		}
		p.entered[i] = true
	}
	for i := range p.lanes {
		l := &p.lanes[i]
		if err := p.plane.look(&l.route); err != nil {
			return Broken, err
		}
		l.shared.Base = l.shared.Written
		if err := o.Routes.Put(p.sockets[i].Cookie, l.route); err != nil {
			return refusalOf(err), fmt.Errorf("enter a route: %w", err)
		}
	}
	for i, s := range p.sockets {
		if err := sys.AttachFilter(s.FD, o.SockmapFilter.FD()); err != nil {
			return refusalOf(err), fmt.Errorf("attach the filter: %w", err)
		}
		p.filtered[i] = true
	}
	// From here on bytes take the new way.
	for i, s := range p.sockets {
		if err := o.Sources.Put(s.Cookie, uint64(s.FD)); err != nil {
			return refusalOf(err), fmt.Errorf("enter a source: %w", err)
		}
		p.lanes[i].sourced = true
	}
	return 0, nil
}

// Lane returns the direction whose source is sockets[i].
func (p *Pair) Lane(i int) *Lane { return &p.lanes[i] }

// Close has the program redirect nothing more, and pass everything.
func (p *Pair) Close() {
	for i := range p.lanes {
		atomic.StoreUint32(&p.lanes[i].shared.Open, 0)
	}
}

// Leave ends the program's part for the source of lane i, of which all that was
// passed is taken: what comes from then on stays in the receive queue. What was
// redirected is still on its way. false: something has been passed meanwhile,
// which is to be taken first. The lane is still: a segment that is between the
// receive queue and the program at this very moment is dropped by the kernel,
// which [Pair.Forget] finds out.
func (p *Pair) Leave(i int) (bool, error) {
	l, s := &p.lanes[i], p.sockets[i]
	if !l.sourced {
		return true, nil
	}
	if l.Waiting() > 0 {
		return false, nil
	}
	sources := p.plane.objects.Sources
	if err := sources.Delete(s.Cookie); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, fmt.Errorf("take a source out: %w", err)
	}
	if l.Waiting() > 0 {
		// Only a source's receive counts as read what it gets from the program's
		// queue, which is still there.
		if err := sources.Put(s.Cookie, uint64(s.FD)); err != nil {
			return false, fmt.Errorf("enter a source again: %w", err)
		}
		return false, nil
	}
	l.sourced = false
	return true, nil
}

// Cut ends the program's part for sockets that are to be closed: what was passed
// to them and not taken is lost.
func (p *Pair) Cut() {
	p.Close()
	for i, s := range p.sockets {
		if l := &p.lanes[i]; l.sourced {
			_ = p.plane.objects.Sources.Delete(s.Cookie)
			l.sourced = false
		}
	}
}

// Forget takes the sockets, which have left, out of the maps and gives up the
// lanes. Whatever was redirected and has not entered is lost with it. With
// audit, it returns an error if a source has received more than all that is
// accounted for; the descriptors have to be open then.
func (p *Pair) Forget(audit bool) (err error) {
	p.Cut()
	o := &p.plane.objects
	for i, s := range p.sockets {
		_ = o.Members.Delete(s.Cookie)
		_ = o.Routes.Delete(s.Cookie)
		if p.filtered[i] {
			_ = sys.DetachFilter(s.FD) // it is there, or the socket is closed
		}
		if audit && p.entered[i] {
			err = errors.Join(err, p.lanes[i].audit(s.FD))
		}
	}
	p.plane.give(p.index)
	return err
}

// countLooks bounds how often counters are read until nothing has come in
// between.
const countLooks = 100

// consumed counts the bytes that have come to a socket and are not in its
// receive queue. ok is false where they can't be counted: the socket is dead, or
// a stream runs too fast.
func consumed(fd int) (n int64, ok bool) {
	for range countLooks {
		before, err := sys.ReadTCPInfo(fd)
		if err != nil || before.State == sys.TCPClosed {
			return 0, false
		}
		queued, err := sys.Unread(fd)
		if err != nil {
			return 0, false
		}
		after, err := sys.ReadTCPInfo(fd)
		if err != nil {
			return 0, false
		}
		if after.BytesReceived == before.BytesReceived && after.State == before.State {
			n := int64(after.BytesReceived) - int64(queued)
			switch after.State {
			case sys.TCPEstablished, sys.TCPFinWait1, sys.TCPFinWait2:
			default:
				n-- // its FIN counts as a byte
			}
			return n, true
		}
	}
	return 0, false
}

// audit compares what has come to the source with what is accounted for.
func (l *Lane) audit(fd int) error {
	if err := l.Fault(); err != nil {
		return err
	}
	n, ok := consumed(fd)
	if !ok || !l.audited {
		return nil
	}
	if lost := n - l.received - l.Redirected() - int64(l.taken); lost != 0 {
		return fmt.Errorf("the kernel has dropped %d bytes on their way out of the program: %w", lost, syscall.EIO)
	}
	return nil
}

// A Lane is one direction of a pair.
type Lane struct {
	plane    *Plane
	shared   *bpf.SockmapLane
	route    bpf.SockmapRoute
	sourced  bool   // the program sees what comes
	received int64  // bytes that had come before the first of the lane's
	audited  bool   // received is known
	taken    uint64 // of what was passed
	entered  uint64 // redirected bytes that were seen to be in the drain's send queue
}

// Redirected counts the bytes handed to the drain's socket. It is for anybody.
func (l *Lane) Redirected() int64 { return int64(atomic.LoadUint64(&l.shared.Redirected)) }

// Trimmed counts the bytes that the kernel gave a second time, and that were
// cut off. It is for anybody.
func (l *Lane) Trimmed() int64 { return int64(atomic.LoadUint64(&l.shared.Trimmed)) }

// Moved is when a byte was last redirected, on CLOCK_MONOTONIC; 0 is never. It
// is for anybody.
func (l *Lane) Moved() time.Duration { return time.Duration(atomic.LoadUint64(&l.shared.Last)) }

// Sourced says whether the program sees what comes.
func (l *Lane) Sourced() bool { return l.sourced }

// Still has the source take no more data, as if it was lost on its way, until it
// is called with false: for the moment of [Pair.Leave]. The sender has to send
// it again.
func (l *Lane) Still(on bool) {
	var v uint32
	if on {
		v = 1
	}
	atomic.StoreUint32(&l.shared.Still, v)
}

// Waiting counts the bytes that were passed and not taken.
func (l *Lane) Waiting() int { return int(atomic.LoadUint64(&l.shared.Passed) - l.taken) }

// Took notes n bytes received from the source.
func (l *Lane) Took(n int) {
	if n > 0 {
		l.taken += uint64(n)
		atomic.StoreUint64(&l.shared.Taken, l.taken)
	}
}

// Dropped counts the segments that the filter has not let in.
func (l *Lane) Dropped() int { return int(atomic.LoadUint32(&l.shared.Dropped)) }

// Forwarded notes n bytes sent to the drain. Once that is all, the program may
// redirect.
func (l *Lane) Forwarded(n int) {
	if n > 0 {
		atomic.AddUint64(&l.shared.Forwarded, uint64(n))
	}
}

// NearLimit says that the limit of bytes is so near that nothing is redirected
// any more.
func (l *Lane) NearLimit() bool {
	return atomic.LoadUint64(&l.shared.Redirected)+atomic.LoadUint64(&l.shared.Passed)+1<<20 > l.shared.Budget
}

// The faults of a lane: the bytes that the kernel gave the program are not the
// stream. Nobody can mend that; the session must not end as if it were whole.
var (
	errGap  = fmt.Errorf("segments are missing before the verdict program: %w", syscall.EIO)
	errTrim = fmt.Errorf("a retransmission could not be cut: %w", syscall.EIO)
)

// Fault returns what went wrong, nil if nothing has.
func (l *Lane) Fault() error {
	switch f := atomic.LoadUint32(&l.shared.Fault); {
	case f == 0:
		return nil
	case f&1 != 0:
		return errGap
	}
	return errTrim
}

// Entered says whether all that was redirected is in the drain's send queue, in
// front of what is sent next. As long as something waits to be forwarded, that
// stays so.
func (l *Lane) Entered() (bool, error) {
	redirected := atomic.LoadUint64(&l.shared.Redirected)
	if redirected == l.entered {
		return true, nil
	}
	if err := l.plane.look(&l.route); err != nil {
		return false, err
	}
	handed := uint32(redirected + atomic.LoadUint64(&l.shared.Forwarded))
	// Both are asked for: before Linux 6.5 a segment that is being sent is not
	// among those that wait, and what a stranger writes to the drain counts as
	// written.
	if l.shared.Queued > 0 || int32(l.shared.Written-l.shared.Base-handed) < 0 {
		return false, nil
	}
	l.entered = redirected
	return true, nil
}
