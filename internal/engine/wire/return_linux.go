package wire

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/spliced-io/spliced/internal/bpf"
	"github.com/spliced-io/spliced/internal/sys"
)

// Taking a pair back: nothing new goes across (Bar), what has gone across is
// acknowledged (Resting), and two sockets are made of the numbers that the
// entries have then (Return). No byte is anybody's but its sender's meanwhile:
// what was kept back is sent again, and finds a socket.

// ErrMoved means that the pair can't be taken back yet, or any more: it is not
// at rest, or has ended.
var ErrMoved = errors.New("not at rest")

// returnAhead, in ticks, is how much later the timestamps of a socket are than
// the last that the program has passed: packets can overtake each other.
const returnAhead = 200

// Bar keeps back what is new: from here on both sides can only send again what
// has gone across already. A packet that another CPU is at goes across: give it
// time before Resting is believed.
func (pair *Pair) Bar() error {
	return pair.plane.objects.Bar(&pair.keys, &[2]bpf.WireBar{{Set: true, Here: true}, {Set: true, Here: true}})
}

// furthest is how far ahead a bar can be: sequence numbers wrap. The program puts it
// forward by itself.
const furthest = 1 << 30

// barAt is a bar that is n bytes after a number.
func barAt(number uint32, n int64) bpf.WireBar {
	ahead := min(n, furthest)
	return bpf.WireBar{Set: true, At: number + uint32(ahead), Beyond: uint64(n - ahead)}
}

// Limit lets at most so many more bytes of each side go across than had at v,
// what has since among them; negative: any number.
func (pair *Pair) Limit(v *View, room [2]int64) error {
	var bars [2]bpf.WireBar
	for i, n := range room {
		if n >= 0 {
			bars[i] = barAt(v.Flows[i].End, n)
		}
	}
	return pair.plane.objects.Bar(&pair.keys, &bars)
}

// roomAhead is how much room there has to be beyond what the sockets have to
// deliver: more may be on its way to them.
const roomAhead = 1 << 20

// limit is Limit for a pair that is about to be switched. EAGAIN: the sockets have
// received almost as much as may cross.
func (pair *Pair) limit() error {
	if pair.Room == [2]int64{-1, -1} {
		return nil
	}
	var bars [2]bpf.WireBar
	for i, n := range pair.Room {
		if n < 0 {
			continue
		}
		read, err := pair.legs[i].read()
		if err != nil {
			return err
		}
		if int64(pair.legs[i].received-read)+roomAhead > n {
			return syscall.EAGAIN
		}
		bars[i] = barAt(read, n)
	}
	return pair.plane.objects.Bar(&pair.keys, &bars)
}

// acked is what the other side has acknowledged of a side's data, in that
// side's own numbers.
func acked(v *View, i int) uint32 {
	back := &v.Flows[1-i]
	return back.Acked + back.Rewrite.AckAdd
}

// Resting says whether all that has gone across is acknowledged, and the pair
// has not ended.
func (v *View) Resting() bool {
	for i := range v.Flows {
		if v.Flows[i].Verdict != 0 || acked(v, i) != v.Flows[i].End {
			return false
		}
	}
	return true
}

// Ask has side i acknowledge what it has: it need not do so by itself for as long as it waits
// for more. One that is gone answers with a RST, at a number at which it is believed. A lost answer
// is asked for again by the next call.
func (pair *Pair) Ask(v *View, i int) {
	s := pair.voice(v, i)
	s.seq--                 // was acknowledged: out of place, which is answered
	_ = pair.plane.send(&s) // as lost as any packet can be
}

// voice is a segment to peer i with the numbers that it expects.
func (pair *Pair) voice(v *View, i int) segment {
	l, mine, other := &pair.legs[i], &v.Flows[i], &v.Flows[1-i]
	window := uint64(other.Window) << other.Rewrite.WindowIn >> other.Rewrite.WindowOut
	return segment{
		from: l.local, to: l.peer, seq: mine.Acked, ack: acked(v, i), window: uint16(min(window, 65535)),
		stamped: pair.timestamps, stamp: other.Tsval + other.Rewrite.TsvalAdd, stampEcho: mine.Tsval,
	}
}

// Return makes two connected sockets of a pair that is barred and at rest, and
// takes the entries out: packets find the sockets then. done is called by
// another goroutine, but for [ErrClosed], and owns the descriptors. After an error there are none, and
// the entries are as they were, unless they have gone: then both sides got a RST.
func (pair *Pair) Return(done func(fds [2]int, err error)) {
	p := pair.plane
	if !p.claim() { // rebuild lets go of the pair, and is not done then
		done([2]int{-1, -1}, ErrClosed)
		return
	}
	go func() {
		defer p.unclaim()
		var fds [2]int
		err := p.netns.do(func() (err error) {
			fds, err = pair.rebuild()
			return err
		})
		done(fds, err)
	}()
}

func (pair *Pair) rebuild() (fds [2]int, err error) {
	fds = [2]int{-1, -1}
	defer func() {
		if err != nil {
			for _, fd := range fds {
				if fd >= 0 {
					_ = sys.Close(fd) // in repair mode: without a word
				}
			}
		}
	}()
	v, err := pair.Look()
	if err != nil {
		return fds, err
	}
	if !v.Resting() {
		return fds, ErrMoved
	}
	for i := range pair.legs {
		if fds[i], err = pair.revive(&v, i); err != nil {
			return fds, fmt.Errorf("rebuild the socket of %s: %w", pair.legs[i].peer, err)
		}
	}
	if v, err = pair.Look(); err != nil {
		return fds, err
	}
	if !v.Resting() {
		return fds, ErrMoved // a RST
	}
	pair.remove()
	for i, fd := range fds {
		if err := sys.SetRepairQueue(fd, sys.NoQueue); err != nil {
			pair.sayReset(&v)
			return fds, fmt.Errorf("end repair mode: %w", err)
		}
		// With a probe: what the sides say next may be long in coming.
		if err := sys.SetRepair(fd, sys.RepairOff); err != nil {
			pair.sayReset(&v)
			return fds, fmt.Errorf("end repair mode: %w", err)
		}
		if v.Flows[i].Fin != 0 {
			// The FIN was acknowledged, its sender won't repeat it.
			s := pair.fin(&v, i)
			if err := pair.plane.send(&s); err != nil {
				pair.sayReset(&v)
				return fds, err
			}
		}
	}
	return fds, nil
}

// revive makes the socket towards peer i, in repair mode.
func (pair *Pair) revive(v *View, i int) (fd int, err error) {
	l, mine, other := &pair.legs[i], &v.Flows[i], &v.Flows[1-i]
	local, err := sys.TCPAddress(l.local)
	if err != nil {
		return -1, err
	}
	peer, err := sys.TCPAddress(l.peer)
	if err != nil {
		return -1, err
	}
	received, sent := mine.End, mine.Acked
	if mine.Fin != 0 {
		received--
	}
	if other.Fin != 0 {
		sent--
	}
	if fd, err = sys.StreamSocket(local.Family()); err != nil {
		return -1, err
	}
	step := func(what string, f func() error) {
		if err != nil {
			return
		}
		if e := f(); e != nil {
			err = fmt.Errorf("%s: %w", what, e)
		}
	}
	window := mine.Window << l.sendScale()
	step("TCP_REPAIR", func() error { return sys.SetRepair(fd, sys.RepairOn) })
	step("bind", func() error { return sys.Bind(fd, &local) })
	step("TCP_REPAIR_QUEUE", func() error { return sys.SetRepairQueue(fd, sys.ReceiveQueue) })
	step("TCP_QUEUE_SEQ", func() error { return sys.SetQueueSeq(fd, received) })
	step("TCP_REPAIR_QUEUE", func() error { return sys.SetRepairQueue(fd, sys.SendQueue) })
	step("TCP_QUEUE_SEQ", func() error { return sys.SetQueueSeq(fd, sent) })
	step("connect", func() error { return sys.Connect(fd, &peer) })
	step("TCP_REPAIR_OPTIONS", func() error {
		return sys.SetRepairOptions(fd, sys.RepairOptions{
			MSS: l.peerMSS, SendScale: l.info.SendScale, ReceiveScale: l.info.ReceiveScale, Scaled: l.scaled(),
			SACK: l.info.Options&sys.TCPSACK != 0, Timestamps: l.stamped(),
		})
	})
	if l.stamped() {
		stamp := other.Tsval + other.Rewrite.TsvalAdd + returnAhead
		step("TCP_TIMESTAMP", func() error { return sys.SetTimestamp(fd, stamp) })
	}
	step("TCP_REPAIR_WINDOW", func() error {
		w, err := sys.ReadRepairWindow(fd)
		if err != nil {
			return err
		}
		w.SendLast, w.Send, w.Most, w.ReceiveFrom = received-1, window, max(window, w.Most), received
		return sys.SetRepairWindow(fd, w)
	})
	if other.Fin != 0 {
		// Taken for sent, as all of that queue in repair mode.
		step("shutdown", func() error { return sys.Shutdown(fd, syscall.SHUT_WR) })
	}
	if err != nil {
		_ = sys.Close(fd)
		return -1, err
	}
	return fd, nil
}

// fin is peer i's FIN, as its socket here should have got it.
func (pair *Pair) fin(v *View, i int) segment {
	l, mine, other := &pair.legs[i], &v.Flows[i], &v.Flows[1-i]
	return segment{
		from: l.peer, to: l.local, seq: mine.End - 1, ack: mine.Acked, window: uint16(mine.Window), fin: true,
		stamped: pair.timestamps, stamp: mine.Tsval, stampEcho: other.Tsval + other.Rewrite.TsvalAdd,
	}
}
