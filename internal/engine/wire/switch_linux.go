package wire

import (
	"fmt"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/bpf"
	"github.com/spliced-io/spliced/internal/sys"
)

// A pair is switched while it moves. Bytes keep their order from one leg to the
// other, so the distance of their two numbers is a constant; from the switch on
// data goes across, and the sockets deliver what they have received before.

// Learn finds out how the numbers of the two legs belong together. Of what was
// read from each leg, held bytes have not been written to the other one. EAGAIN:
// a socket has bytes that it has not sent, or receives too fast; ask again.
func (pair *Pair) Learn(held [2]int) error {
	for i := range pair.legs {
		if pair.learned[i] {
			continue
		}
		from, to := &pair.legs[i], &pair.legs[1-i]
		if n, err := sys.Unsent(to.fd); err != nil || n > 0 {
			return again(err)
		}
		written, err := to.written()
		if err != nil {
			return err
		}
		read, err := from.read()
		if err != nil {
			return err
		}
		pair.add[i], pair.learned[i] = written-(read-uint32(held[i])), true
	}
	return nil
}

// Learned says whether that is known for the bytes of a, or of b.
func (pair *Pair) Learned(i int) bool { return pair.learned[i] }

func again(err error) error {
	if err == nil {
		return syscall.EAGAIN
	}
	return err
}

// A Window is what the peers of a pair may send without an acknowledgement.
type Window uint8

// The windows.
const (
	WindowOpen     Window = iota // as much as the kernel lets them
	WindowModest                 // enough for a stream between neighbours
	WindowSqueezed               // less than most receivers have room for
	WindowClosed                 // nothing to speak of
)

const (
	openWindow     = 1 << 30 // more than any window
	modestWindow   = 256 << 10
	squeezedWindow = 32 << 10
	closedWindow   = 1 // the kernel makes it about 1,152: no segment is sent into that

	fewUnsent = 64 << 10
)

// Bound sets the windows of both sockets, and but for WindowOpen bounds what they
// buffer for sending: all of it has to fit what the receiver has room for. Less than
// WindowModest is for those sides alone that may send too much: a server that
// answers while it reads would be stopped altogether.
func (pair *Pair) Bound(w Window) {
	windows := [...]int{openWindow, modestWindow, squeezedWindow, closedWindow}
	unsent := 0
	if w != WindowOpen {
		unsent = fewUnsent
	}
	for i := range pair.legs {
		l, window := &pair.legs[i], windows[w]
		if w > WindowModest && !pair.short[i] {
			window = modestWindow
		}
		// Where one of them fails hand-overs just take longer.
		_ = sys.FixReceiveBuffer(l.fd, w != WindowOpen)
		_ = sys.SetWindowClamp(l.fd, window)
		_ = sys.SetUnsentMost(l.fd, unsent)
		l.window, l.narrowed = window, false
	}
}

// Switch has data go across from now on: it has to be learned. EOVERFLOW, unless
// anyhow: a side may send by now more than the other has room for, as far as the calls
// so far show; now is of any clock. The sockets announce no more from then on than the other side has room
// for. EAGAIN: a side was not seen yet, or what a socket has received has a hole: ask again. ENOTCONN: one
// has ended. EHOSTUNREACH: the packets of one come in their last hop. EKEYREJECTED:
// one signs its segments. EMSGSIZE: some of one come in fragments. ENODEV: one is on this machine, and bound to an interface.
func (pair *Pair) Switch(now time.Duration, anyhow bool) (err error) {
	for range switchTries {
		if err = pair.trySwitch(now, anyhow); err != syscall.EAGAIN {
			break
		}
	}
	if err != nil {
		pair.widen()
	}
	return err
}

// switchTries bounds the looks at a pair of which something arrives in between.
const switchTries = 3

func (pair *Pair) trySwitch(now time.Duration, anyhow bool) error {
	pair.acknowledge()
	for i := range pair.legs {
		l := &pair.legs[i]
		if err := l.look(); err != nil {
			return err
		}
		l.pace.see(now, paceLeast+pair.RTT(), l.received)
	}
	flows, err := pair.flows()
	if err != nil {
		return err
	}
	var sides [2]bpf.WireSide
	for i := range sides {
		from, to := &pair.legs[i], &pair.legs[1-i]
		back := &flows[1-i]
		room := back.Acked + back.Window<<to.sendScale() - pair.add[i]
		if err := from.narrow(int(int32(room-from.received)), anyhow); err != nil {
			return err
		}
		sides[i] = bpf.WireSide{
			Key: pair.keys[i], Received: from.received,
			Edge: from.received + max(from.flight(), from.widest()), Promised: from.received + from.promised(),
			Rewrite: pair.rewrite(i, from, to, &flows),
		}
		pair.short[i] = before(room, sides[i].Edge)
	}
	if err := pair.limit(); err != nil {
		return err
	}
	// Last: nothing may arrive from here on.
	for i := range sides {
		l := &pair.legs[i]
		was := l.received
		if l.received, err = sys.QueueSeq(l.fd); err != nil {
			return err
		}
		sides[i].Received = l.received
		sides[i].Edge += l.received - was
	}
	return pair.plane.objects.Switch(&sides, anyhow)
}

// acknowledge has the sockets say what they owe, which they may put off for 200 ms. When all
// goes across, a peer can be gone by then: it would answer with a RST.
func (pair *Pair) acknowledge() {
	for i := range pair.legs {
		_ = sys.Acknowledge(pair.legs[i].fd) // else it comes later
	}
}

// widest is the largest window that the socket announces from now on, as long as nothing arrives. The one that it has
// announced can be smaller: that grows as what it holds is read.
func (l *leg) widest() uint32 {
	part := l.unit() - 1
	return (l.info.ReceiveMost + part) &^ part
}

// unit is what the windows that the socket announces are multiples of.
func (l *leg) unit() uint32 {
	if l.scaled() {
		return 1 << l.info.ReceiveScale
	}
	return 1
}

// narrow has the socket announce no more than room, which is what the other peer takes behind that which the socket
// has received: while it drains, what its own peer sends goes across. What was announced before stays so. Hence it does
// nothing where more is expected to be under way, unless the pair is to be switched anyhow.
func (l *leg) narrow(room int, anyhow bool) (err error) {
	if room >= int(l.widest()) || room < int(l.flight()) && !anyhow {
		return nil
	}
	room -= room & int(l.unit()-1) // it would be rounded up
	if err = sys.SetWindowClamp(l.fd, max(room, closedWindow)); err != nil {
		return err
	}
	l.narrowed = true
	l.info, err = sys.ReadTCPInfo(l.fd)
	return err
}

// widen undoes that.
func (pair *Pair) widen() {
	for i := range pair.legs {
		if l := &pair.legs[i]; l.narrowed {
			_ = sys.SetWindowClamp(l.fd, l.window) // failing, hand-overs just take longer
			l.narrowed = false
		}
	}
}

// leastFlight is what any peer may send at once.
const leastFlight = 16 << 10

// flight is how many bytes the peer can be expected to have under way at most. Its
// window can't be made small where messages are: the kernel rounds it up to the unit of its
// scale with each of them. And what the kernel takes for a round trip's bytes is a guess until
// it has met so many: 64 KiB on lo, which is all the room that the other side has. So a peer
// that has sent little for a while is expected to go on like that.
func (l *leg) flight() uint32 {
	n := max(l.info.ReceiveSpace, leastFlight)
	if most, known := l.pace.most(); known {
		n = min(n, max(2*most, leastFlight)) // a sender may double in a round trip
	}
	return min(l.info.ReceiveWindow, n)
}

// knownWindow is a window that each peer has heard of: sockets announce 32 KiB, rounded down to
// whole segments, or more from their first segment on. A socket with less room has a smaller one at the switch.
const knownWindow = 24 << 10

// promised is the window that the peer may use as long as it gets bytes from the socket. Behind the largest
// that it has seen it would take the socket for one of the past (RFC 5961, 5). What the socket has announced
// last it need not have heard of: that can be lost, or overtaken by what goes across.
func (l *leg) promised() uint32 { return min(l.info.ReceiveWindow, knownWindow) }

func (pair *Pair) flows() (flows [2]bpf.WireFlow, err error) {
	for i := range flows {
		if flows[i], err = pair.plane.objects.Flow(&pair.keys[i]); err != nil {
			return flows, fmt.Errorf("look up the flow: %w", err)
		}
	}
	return flows, nil
}

// Undelivered counts the bytes of each leg that were written to the other one and
// were not acknowledged at the switch. held is as in [Pair.Learn], now.
func (pair *Pair) Undelivered(held [2]int) (n [2]int64, err error) {
	flows, err := pair.flows()
	if err != nil {
		return n, err
	}
	for i := range n {
		read, err := pair.legs[i].read()
		if err != nil {
			return n, err
		}
		n[i] = int64(int32(read - uint32(held[i]) + pair.add[i] - flows[1-i].From))
	}
	return n, nil
}

// stampAhead, in ticks of a millisecond, is how far timestamps jump at least at
// the switch. What the sockets still say, by their own clocks, must not look
// newer, nor what the peers say when their packets take longer.
const stampAhead = 20

// ahead is how far timestamps of packets to a leg jump.
func (l *leg) ahead() uint32 { return stampAhead + 2*l.info.RTT/1000 }

// rewrite is what becomes of the packets that come in by leg i.
func (pair *Pair) rewrite(i int, from, to *leg, flows *[2]bpf.WireFlow) bpf.WireRewrite {
	r := bpf.WireRewrite{
		To:      bpf.WireKeyOf(to.local, to.peer),
		Ifindex: uint32(to.hop.ifindex),
		SeqAdd:  pair.add[i],
		AckAdd:  -pair.add[1-i],
	}
	if pair.timestamps {
		r.TsvalAdd = to.stamp + to.ahead() - flows[i].Tsval
		r.TsecrAdd = flows[1-i].Tsval - (from.stamp + from.ahead()) // the inverse of the way back
	}
	if from.scaled() {
		r.WindowIn = from.sendScale()
	}
	if to.scaled() {
		r.WindowOut = to.info.ReceiveScale
	}
	return r
}

// Drained says whether the peers have acknowledged all that the sockets have
// received, and all that lies before the cut: then nobody needs them any more. Has a socket received
// more, which was past the program before the pair was entered, it delivers that too, and is shown what is acknowledged
// of it.
func (pair *Pair) Drained() (bool, error) {
	// In this order: what was received by now is to be acknowledged.
	var received [2]uint32
	for i := range pair.legs {
		var err error
		if received[i], err = sys.QueueSeq(pair.legs[i].fd); err != nil {
			return false, err
		}
	}
	flows, err := pair.flows()
	if err != nil {
		return false, err
	}
	var sides [2]bpf.WireSide
	drained, late := true, false
	for i := range received {
		sides[i] = bpf.WireSide{Key: pair.keys[i], Received: received[i]}
		all := throughCut(received[i], &flows[i])
		if !acknowledged(&flows[1-i], all+pair.add[i]) {
			drained = false
		}
		late = late || all != flows[i].Cut
	}
	if late {
		return false, pair.plane.objects.Drain(&sides)
	}
	return drained, nil
}

// Got says whether the peer of the other leg has acknowledged all that the socket of leg i has received, and all that
// lies before the cut: Drained for one direction, whose sender is gone.
func (pair *Pair) Got(i int) (bool, error) {
	received, err := sys.QueueSeq(pair.legs[i].fd)
	if err != nil {
		return false, err
	}
	flows, err := pair.flows()
	if err != nil {
		return false, err
	}
	return acknowledged(&flows[1-i], throughCut(received, &flows[i])+pair.add[i]), nil
}

// throughCut is the end of what a socket has received, or of what lies before the cut: what came at the moment of the
// switch is still on its way to the socket, or was lost there, and went across when it was sent again.
func throughCut(received uint32, f *bpf.WireFlow) uint32 {
	if before(received, f.Cut) {
		return f.Cut
	}
	return received
}

// acknowledged says whether a flow's sender has acknowledged all before a number that the other leg's socket has delivered. More
// can have gone across since the switch than numbers can be compared with.
func acknowledged(back *bpf.WireFlow, number uint32) bool {
	n, _ := delivered(back)
	return n >= int64(int32(number-back.From))
}

// Backlog is what the sockets have received in one direction and the receiver has
// not acknowledged, in bytes: that of the direction that has more.
func (pair *Pair) Backlog() (most int) {
	flows, err := pair.flows()
	if err != nil {
		return 0
	}
	for i := range pair.legs {
		n := int(int32(pair.legs[i].received + pair.add[i] - flows[1-i].Acked))
		most = max(most, n)
	}
	return most
}

// Idle says that the sockets have nothing to deliver.
func (pair *Pair) Idle() bool {
	for i := range pair.legs {
		fd := pair.legs[i].fd
		if n, err := sys.Unread(fd); err != nil || n > 0 {
			return false
		}
		if n, err := sys.Unacked(fd); err != nil || n > 0 {
			return false
		}
	}
	return true
}

func before(a, b uint32) bool { return int32(a-b) < 0 }

// Settle has all go across, leaves m and the note for a successor, and tells both sides the window
// of the other, which they may know only as that of the sockets in between. The
// sockets stay, in repair mode: what was on its way to them may yet arrive, and if
// this process dies now they say nothing. Nothing may be read from them or written
// to them.
func (pair *Pair) Settle(m Meta, note string) error {
	pair.acknowledge() // of what came since the switch
	for i := range pair.legs {
		if err := sys.SetRepair(pair.legs[i].fd, sys.RepairOn); err != nil {
			return err
		}
		if err := sys.SetRepairQueue(pair.legs[i].fd, sys.ReceiveQueue); err != nil {
			return err
		}
	}
	pair.note(m.Started, note)
	_ = pair.Record(m) // a full table: then nobody adopts it
	if err := pair.plane.objects.Settle(&pair.keys); err != nil {
		return err
	}
	pair.announce()
	return nil
}

// Unsettle undoes what Settle has done to the sockets: they have received something
// since.
func (pair *Pair) Unsettle() {
	for i := range pair.legs {
		pair.legs[i].leaveRepair(sys.RepairOffNoProbe)
	}
}

func (pair *Pair) announce() {
	v, err := pair.Look()
	if err != nil || v.Over {
		return // the next look finds out; nobody is left to tell
	}
	for i := range pair.legs {
		// Lost, as any packet can be: a persist timer asks for it then.
		s := pair.voice(&v, i)
		_ = pair.plane.send(&s)
	}
}
