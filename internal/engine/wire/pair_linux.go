package wire

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/bpf"
	"github.com/spliced-io/spliced/internal/sys"
)

// A Pair is two entries in the table: first those that watch the sockets'
// packets, then those that splice them. One goroutine at a time changes it;
// [Pair.Look] is for anybody.
type Pair struct {
	// Room is how many bytes of a and of b may go across once [Pair.Arm] has
	// the pair spliced; negative is any number. See [Pair.Limit].
	Room [2]int64

	plane *Plane
	legs  [2]leg // a, b
	keys  [2]bpf.WireKey
	sides [2]bpf.WireSide
	news  func() // see Consider

	timestamps bool
}

// ErrRace means that a socket received data after its numbers were handed
// over: the two sides no longer agree.
var ErrRace = errors.New("a segment overtook the hand-over")

// ErrClosed means that the plane has ended: another one has to be opened.
var ErrClosed = errors.New("the plane has ended")

// ErrPending means that the program is being attached to an interface: ask again
// in a few milliseconds.
var ErrPending = errors.New("being attached")

// Consider enters a pair of connected sockets into the table, to be watched.
// news is called, by a goroutine of the plane, when something about the ends of
// the spliced connection has changed; it must not block.
func (p *Plane) Consider(a, b int, news func()) (_ *Pair, why Refusal, err error) {
	if !p.claim() {
		return nil, Broken, ErrClosed
	}
	defer func() {
		if why != 0 || err != nil {
			p.unclaim()
		}
	}()
	pair := &Pair{plane: p, news: news, Room: [2]int64{-1, -1}}
	for i, fd := range [...]int{a, b} {
		l := &pair.legs[i]
		if why, err := l.inspect(fd); why != 0 {
			return nil, why, err
		}
		pair.keys[i] = l.key()
	}
	if why := compare(&pair.legs[0], &pair.legs[1]); why != 0 {
		return nil, why, nil
	}
	pair.timestamps = pair.legs[0].stamped()
	for i := range pair.legs {
		l := &pair.legs[i]
		if l.hop, why, err = p.lookup(l.local.Addr(), l.peer.Addr()); why != 0 {
			return nil, why, err
		}
		if why, err = p.attached(l.hop.ifindex); why != 0 || err != nil {
			return nil, why, err
		}
	}
	if why, err = pair.insert(); why != 0 {
		return nil, why, err
	}
	for i := range pair.legs {
		pair.legs[i].probe()
	}
	return pair, 0, nil
}

func (pair *Pair) insert() (Refusal, error) {
	p := pair.plane
	for i := range pair.keys {
		l := &pair.legs[i]
		f := bpf.WireFlow{Passed: l.received}
		err := p.objects.Insert(&pair.keys[i], &f)
		if err == syscall.EEXIST && p.stale(&pair.keys[i]) {
			err = p.objects.Insert(&pair.keys[i], &f)
		}
		if err == nil {
			continue
		}
		if i > 0 {
			p.objects.Delete(&pair.keys[0])
		}
		switch {
		case err == syscall.EEXIST:
			return Conflict, nil
		case errors.Is(err, syscall.E2BIG):
			return Full, err
		}
		return Broken, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range pair.keys {
		p.pairs[pair.keys[i]] = pair
	}
	return 0, nil
}

// stale takes an entry out whose connection is over.
func (p *Plane) stale(k *bpf.WireKey) bool {
	f, err := p.objects.Flow(k)
	if err != nil || f.Verdict == 0 {
		return false
	}
	p.objects.Delete(k)
	return true
}

// Seen says whether packets of both sides have come by the program.
func (pair *Pair) Seen() bool {
	for i := range pair.keys {
		f, err := pair.plane.objects.Flow(&pair.keys[i])
		if err != nil || f.Seen == 0 {
			return false
		}
	}
	return true
}

// RTT is the longer of the two round-trip times.
func (pair *Pair) RTT() time.Duration {
	us := max(pair.legs[0].info.RTT, pair.legs[1].info.RTT)
	return time.Duration(us) * time.Microsecond
}

// The bounds of [Pair.Bound].
const (
	closedWindow   = 1 // the kernel makes it about 1,152: no segment is sent into that
	squeezedWindow = 256 << 10
	openWindow     = 1 << 30 // more than any window

	fewUnsent = 64 << 10
)

// A Window is what the peers of a pair may send without an acknowledgement.
type Window uint8

// The windows.
const (
	WindowOpen     Window = iota // as much as the kernel lets them
	WindowSqueezed               // little: no more than that comes after it is closed
	WindowClosed                 // nothing to speak of
)

// Bound sets the windows of both sockets, and but for WindowOpen bounds what they
// buffer for sending: all of it has to be delivered before the pair is at rest.
func (pair *Pair) Bound(w Window) {
	window, unsent := openWindow, 0
	if w != WindowOpen {
		window, unsent = squeezedWindow, fewUnsent
	}
	if w == WindowClosed {
		window = closedWindow
	}
	for i := range pair.legs {
		fd := pair.legs[i].fd
		// Where one of them fails hand-overs just take longer.
		_ = sys.FixReceiveBuffer(fd, w != WindowOpen)
		_ = sys.SetWindowClamp(fd, window)
		_ = sys.SetUnsentMost(fd, unsent)
	}
}

// Release undoes [Pair.Arm]. EALREADY: the pair was spliced before. EAGAIN: a
// packet is about to; ask again.
func (pair *Pair) Release() error { return pair.plane.objects.Release(&pair.sides) }

// Arm has the pair spliced by the first packet that finds it at rest: nothing
// unread, nothing unsent, nothing unacknowledged. What was read must have been
// sent, and nothing may be sent later, unless more is read: then the numbers
// are void, and it takes another Arm. EALREADY: it is spliced. EAGAIN: there
// is something to read or to send. ENOTCONN: a side has ended.
func (pair *Pair) Arm() error {
	for i := range pair.legs {
		// The capture below must not run while there is something to send.
		if n, err := sys.Unsent(pair.legs[i].fd); err != nil || n > 0 {
			return again(err)
		}
		if n, err := sys.Unread(pair.legs[i].fd); err != nil || n > 0 {
			return again(err)
		}
	}
	for i := range pair.legs {
		l := &pair.legs[i]
		if err := l.capture(); err != nil {
			return err
		}
		// In this order: all that capture has counted was read.
		if n, err := sys.Unread(l.fd); err != nil || n > 0 {
			return again(err)
		}
		info, err := sys.ReadTCPInfo(l.fd)
		if err != nil {
			return err
		}
		if info.State != sys.TCPEstablished {
			return syscall.ENOTCONN
		}
		l.info = info
	}
	var flows [2]bpf.WireFlow
	for i := range pair.keys {
		f, err := pair.plane.objects.Flow(&pair.keys[i])
		if err != nil {
			return fmt.Errorf("look up the flow: %w", err)
		}
		if f.Seen == 0 {
			return syscall.EAGAIN
		}
		flows[i] = f
	}
	for i := range pair.sides {
		from, to := &pair.legs[i], &pair.legs[1-i]
		pair.sides[i] = bpf.WireSide{
			Key: pair.keys[i], Received: from.received, Sent: from.sent,
			Rewrite: pair.rewrite(from, to, &flows[i], &flows[1-i]),
		}
	}
	if err := pair.limit(); err != nil {
		return err
	}
	return pair.plane.objects.Arm(&pair.sides)
}

// Spliced says whether the pair was switched.
func (pair *Pair) Spliced() bool {
	f, err := pair.plane.objects.Flow(&pair.keys[0])
	if err != nil || f.State != bpf.WireSpliced {
		return false
	}
	f, err = pair.plane.objects.Flow(&pair.keys[1])
	return err == nil && f.State == bpf.WireSpliced
}

// stampAhead, in ticks of a millisecond, is how far timestamps jump at the
// switch. The socket may still send with its own clock between the capture of
// its numbers and the switch, or after it: that must not look newer.
const stampAhead = 100

func again(err error) error {
	if err == nil {
		return syscall.EAGAIN
	}
	return err
}

// rewrite is what becomes of the packets that come in by one leg and go out by
// the other.
func (pair *Pair) rewrite(from, to *leg, flow, back *bpf.WireFlow) bpf.WireRewrite {
	r := bpf.WireRewrite{
		To:      bpf.WireKeyOf(to.local, to.peer),
		Ifindex: uint32(to.hop.ifindex),
		SeqAdd:  to.sent - from.received,
		AckAdd:  to.received - from.sent,
	}
	if pair.timestamps {
		// The socket's own segments end below these.
		r.TsvalAdd = to.stamp + stampAhead - flow.Tsval
		r.TsecrAdd = back.Tsval - (from.stamp + stampAhead) // the inverse of the way back
	}
	if from.scaled() {
		r.WindowIn = from.sendScale()
	}
	if to.scaled() {
		r.WindowOut = to.info.ReceiveScale
	}
	return r
}

// Announce tells both sides the window of the other: until now they know that
// of the sockets in between.
func (pair *Pair) Announce() error {
	var errs []error
	for i := range pair.legs {
		l := &pair.legs[i]
		mine, err := pair.plane.objects.Flow(&pair.keys[i])
		if err != nil {
			return err
		}
		other, err := pair.plane.objects.Flow(&pair.keys[1-i])
		if err != nil {
			return err
		}
		window := uint64(other.Window) << other.Rewrite.WindowIn >> other.Rewrite.WindowOut
		errs = append(errs, pair.plane.send(&segment{
			from: l.local, to: l.peer, seq: l.sent, ack: l.received,
			window:  uint16(min(window, 65535)),
			stamped: pair.timestamps, stamp: l.stamp + stampAhead, stampEcho: mine.Tsval,
		}))
	}
	return errors.Join(errs...)
}

// Hush keeps the sockets of a spliced pair from speaking when this process dies:
// closed in repair mode, a socket sends no FIN.
func (pair *Pair) Hush() {
	for i := range pair.legs {
		if sys.SetRepair(pair.legs[i].fd, sys.RepairOn) == nil {
			_ = sys.SetRepairQueue(pair.legs[i].fd, sys.ReceiveQueue)
		}
	}
}

// Settle dissolves the sockets once every packet that was on its way to them at
// the switch has arrived. ErrRace: one of them carried data.
func (pair *Pair) Settle() error {
	for i := range pair.legs {
		received, err := sys.QueueSeq(pair.legs[i].fd)
		if err != nil {
			return err
		}
		if received != pair.legs[i].received {
			return ErrRace
		}
	}
	pair.Dissolve()
	return nil
}

// Dissolve makes both sockets unconnected without a word to their peers.
func (pair *Pair) Dissolve() {
	for i := range pair.legs {
		pair.legs[i].dissolve()
		pair.legs[i].fd = -1
	}
}

// A View is what is known of a spliced pair.
type View struct {
	Delivered [2]int64 // bytes of a's and of b's that the other has acknowledged, since the switch
	Crossed   [2]int64 // these, and what has gone across and is not acknowledged yet
	FIN       [2]bool  // a's, b's FIN was acknowledged
	Reset     [2]bool  // a, b has sent a RST
	LastMoved int64    // ns, CLOCK_MONOTONIC; 0 if nothing has moved since the switch
	Flows     [2]bpf.WireFlow
}

// Look reads the entries. ENOENT: they are gone.
func (pair *Pair) Look() (v View, err error) {
	// Others than the pair's owner look too, and don't keep the plane.
	pair.plane.life.RLock()
	defer pair.plane.life.RUnlock()
	if pair.plane.released {
		return v, syscall.ENOENT
	}
	for i := range pair.keys {
		if v.Flows[i], err = pair.plane.objects.Flow(&pair.keys[i]); err != nil {
			return v, err
		}
	}
	for i := range v.Flows {
		f, back := &v.Flows[i], &v.Flows[1-i]
		v.Delivered[i] = int64(back.AckedBytes)
		if v.FIN[i] = f.Fin != 0 && back.FinAcked != 0; v.FIN[i] {
			v.Delivered[i]--
		}
		v.Crossed[i] = v.Delivered[i] + int64(int32(f.End-acked(&v, i)))
		if f.Fin != 0 && !v.FIN[i] {
			v.Crossed[i]--
		}
		v.Reset[i] = f.Verdict == bpf.WireEndedRST
		v.LastMoved = max(v.LastMoved, int64(f.LastMoved))
	}
	return v, nil
}

// Abort sends both sides a RST and takes the entries out. A side whose numbers
// have moved meanwhile answers, finds no entry, and gets an exact RST from the
// kernel.
func (pair *Pair) Abort() {
	var flows [2]bpf.WireFlow
	for i := range pair.keys {
		flows[i], _ = pair.plane.objects.Flow(&pair.keys[i])
	}
	pair.takeOut()
	pair.sayReset(&View{Flows: flows})
	pair.plane.forget(pair)
}

// sayReset sends both sides a RST, made of the last numbers seen.
func (pair *Pair) sayReset(v *View) {
	for i := range pair.legs {
		mine, other := &v.Flows[i], &v.Flows[1-i]
		l := &pair.legs[i]
		s := segment{from: l.local, to: l.peer, reset: true, seq: mine.Acked, ack: mine.End}
		// A peer that vanished: nobody is left to tell.
		_ = pair.plane.send(&s)
		if next := other.End + other.Rewrite.SeqAdd; next != s.seq {
			s.seq = next
			_ = pair.plane.send(&s)
		}
	}
}

// Kept says whether a spliced pair outlives this process.
func (pair *Pair) Kept() bool { return pair.plane.kept }

// Leave lets go of a spliced pair that goes on without this process.
func (pair *Pair) Leave() { pair.plane.forget(pair) }

// Withdraw takes out the entries of a pair that was not switched.
func (pair *Pair) Withdraw() { pair.remove() }

func (pair *Pair) remove() {
	pair.takeOut()
	pair.plane.forget(pair) // last: it has kept the plane
}

func (pair *Pair) takeOut() {
	p := pair.plane
	for i := range pair.keys {
		p.objects.Delete(&pair.keys[i])
	}
	if p.meta != nil {
		_ = p.meta.Delete(&pair.keys[0]) // ENOENT: it was not spliced
	}
}

// Finish lets go of a pair that has ended by itself. Its entries stay for a
// while: a last acknowledgement may be lost.
func (pair *Pair) Finish() { pair.plane.retire(pair) }
