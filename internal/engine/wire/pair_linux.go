package wire

import (
	"errors"
	"net/netip"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/bpf"
	"github.com/spliced-io/spliced/internal/sys"
)

// A Pair is two entries in the table: first those that watch the sockets'
// packets, then those that splice them. One goroutine at a time changes it;
// [Pair.Look] is for anybody.
type Pair struct {
	// Room is how many bytes of a and of b may go across once [Pair.Switch] has
	// spliced the pair; negative is any number. See [Pair.Limit].
	Room [2]int64

	plane *Plane
	legs  [2]leg // a, b
	keys  [2]bpf.WireKey
	news  func() // see Consider

	// What is to be added to a number of leg i to get the one that the same byte has
	// on the other leg, once it is learned: it never changes.
	add     [2]uint32
	learned [2]bool
	short   [2]bool // the other leg had no room for what leg i may send, at the last look

	timestamps bool
	owned      bool // guarded by the plane's mu
}

// ErrClosed means that the plane has ended: another one has to be opened.
var ErrClosed = errors.New("the plane has ended")

// ErrPending means that the program is being attached to an interface, or that another process
// is about to let go of the table: ask again in a few milliseconds.
var ErrPending = errors.New("being attached")

// Consider enters a pair of connected sockets into the table, to be watched.
// news is called, by a goroutine of the plane, when something about the ends of
// the spliced connection has changed; it must not block. The error of SegmentSize is
// a [*SegmentError].
func (p *Plane) Consider(a, b int, news func()) (_ *Pair, why Refusal, err error) {
	if !p.claim() {
		return nil, Broken, ErrClosed
	}
	defer func() {
		if why != 0 || err != nil {
			p.unclaim()
		}
	}()
	if why, err := p.ready(); why != 0 || err != nil {
		return nil, why, err
	}
	pair := &Pair{plane: p, news: news, Room: [2]int64{-1, -1}}
	for i, fd := range [...]int{a, b} {
		l := &pair.legs[i]
		l.window = openWindow
		if why, err := l.inspect(fd); why != 0 {
			return nil, why, err
		}
		pair.keys[i] = l.key()
	}
	if why, err := compare(&pair.legs[0], &pair.legs[1]); why != 0 {
		return nil, why, err
	}
	pair.timestamps = pair.legs[0].stamped()
	for i := range pair.legs {
		l := &pair.legs[i]
		if why, err = p.number(l); why != 0 {
			return nil, why, err
		}
		if l.hop, why, err = p.lookup(l.local.Addr(), l.peer.Addr()); why != 0 {
			return nil, why, err
		}
		if sys.RoutesApart(l.fd, l.hop.ifindex) {
			return nil, OwnRoute, nil
		}
		if why, err = p.attached(l.hop.ifindex); why != 0 || err != nil {
			return nil, why, err
		}
	}
	if why, err = pair.insert(); why != 0 || err != nil {
		return nil, why, err
	}
	pair.Probe()
	return pair, 0, nil
}

// Probe makes those peers speak that were not seen yet. One that owes an acknowledgement
// speaks anyway; and if the last segment of the handshake was lost as well, it would answer
// the probe, and then ignore what echoes that answer until it repeats its SYN, a second later.
func (pair *Pair) Probe() {
	for i := range pair.keys {
		if seen, err := pair.seen(i); err != nil || seen {
			continue
		}
		if n, err := sys.Unacked(pair.legs[i].fd); err == nil && n == 0 {
			pair.legs[i].probe()
		}
	}
}

func (pair *Pair) insert() (Refusal, error) {
	p := pair.plane
	p.mu.Lock() // an entry and its owner change together
	defer p.mu.Unlock()
	if !p.held {
		return 0, ErrPending // since Consider has begun
	}
	if p.ring(pair) {
		return Conflict, nil
	}
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
	p.own(pair)
	return 0, nil
}

// rowMost is how many pairs packets may go through on one machine.
const rowMost = 64

// ring says whether other pairs would lead the pair's packets back to it: they would
// go round for ever, and nobody be there to send them again. The plane is locked.
func (p *Plane) ring(pair *Pair) bool {
	k := pair.keys[1].Reverse() // of what a sends, when it leaves
	for range rowMost {
		next := p.pairs[k]
		if next == nil {
			return false
		}
		out := 1
		if next.keys[1] == k {
			out = 0
		}
		if k = next.keys[out].Reverse(); k == pair.keys[0] {
			return true
		}
	}
	return true
}

// stale takes an entry out whose connection is over.
func (p *Plane) stale(k *bpf.WireKey) bool {
	f, err := p.objects.Flow(k)
	if err != nil || f.Over == 0 {
		return false
	}
	p.objects.Delete(k)
	return true
}

// Seen says whether packets of both sides have come by the program.
func (pair *Pair) Seen() bool {
	for i := range pair.keys {
		if seen, err := pair.seen(i); err != nil || !seen {
			return false
		}
	}
	return true
}

// seen says whether a packet of one of the sides has. One that comes in by lo has to be seen as it leaves: who has
// sent it is known there.
func (pair *Pair) seen(i int) (bool, error) {
	f, err := pair.plane.objects.Flow(&pair.keys[i])
	here := pair.legs[i].hop.ifindex == pair.plane.loopback
	return f.Seen != 0 && (f.Left != 0 || !here), err
}

// sender is the address of who sends the packets of an entry, with the zone that it has here, which no key has.
func (pair *Pair) sender(k *bpf.WireKey) netip.Addr {
	i := 0
	if *k == pair.keys[1] {
		i = 1
	}
	return pair.legs[i].peer.Addr()
}

// RTT is the longer of the two round-trip times.
func (pair *Pair) RTT() time.Duration {
	us := max(pair.legs[0].info.RTT, pair.legs[1].info.RTT)
	return time.Duration(us) * time.Microsecond
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

// Dissolve makes both sockets, if there are any, unconnected without a word to their peers.
func (pair *Pair) Dissolve() {
	for i := range pair.legs {
		if l := &pair.legs[i]; l.fd >= 0 {
			l.dissolve()
			l.fd = -1
		}
	}
}

// A View is what is known of a spliced pair.
type View struct {
	Delivered [2]int64 // bytes of a's and of b's that the other has acknowledged, since the switch
	Crossed   [2]int64 // these, and what has gone across and is not acknowledged yet
	FIN       [2]bool  // a's, b's FIN was acknowledged
	Reset     [2]bool  // a, b has sent a RST
	Over      bool     // both FINs were acknowledged, or there was a RST
	Ended     bool     // by [Table.End]
	Doubted   [2]int64 // ns, CLOCK_MONOTONIC: when it was last in doubt whether a, whether b is there: see [Pair.Ask]; 0 if never
	Divided   bool     // packets have come in fragments, or would have to leave so: only sockets can take them
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
	v.interpret()
	return v, nil
}

// interpret says what the entries mean.
func (v *View) interpret() {
	for i := range v.Flows {
		f, back := &v.Flows[i], &v.Flows[1-i]
		// Its receiver may take what is not believed here, as data with a clock that went by before a newer
		// one, which was lost behind.
		if heard := acked(v, i); before(f.End, heard) {
			f.End = heard
		}
		v.Delivered[i], v.FIN[i] = delivered(back)
		v.Crossed[i] = v.Delivered[i] + int64(int32(f.End-acked(v, i)))
		if f.Fin != 0 && !v.FIN[i] {
			v.Crossed[i]--
		}
		v.Reset[i] = f.Verdict == bpf.WireEndedRST
		v.Over = v.Over || f.Over != 0
		v.Ended = v.Ended || f.Verdict == bpf.WireEndedHand
		v.Divided = v.Divided || f.Divided != 0
		v.LastMoved = max(v.LastMoved, int64(f.LastMoved))
		v.Doubted[i] = int64(f.Doubted)
	}
}

// delivered is how many bytes a flow's sender has acknowledged since the switch, and
// whether the FIN behind them too. The program counts after it has noted the number,
// and one can look in between: the number decides, for both.
func delivered(back *bpf.WireFlow) (n int64, fin bool) {
	n = int64(back.AckedBytes)
	n += int64(int32(back.Acked - back.From - uint32(n)))
	if fin = back.PeerFin&bpf.WireFinned != 0 && !before(back.Acked, uint32(back.PeerFin)); fin {
		n--
	}
	return n, fin
}

// Abort takes the entries out, gives up the sockets, if there are any, and sends both
// sides a RST.
func (pair *Pair) Abort() {
	var v View
	for i := range pair.keys {
		v.Flows[i], _ = pair.plane.objects.Flow(&pair.keys[i])
	}
	v.interpret()
	pair.abort(&v)
}

// abort is Abort as of v. What the sides answer is to find no socket.
func (pair *Pair) abort(v *View) {
	pair.takeOut()
	pair.Dissolve()
	pair.sayReset(v)
	pair.plane.forget(pair)
}

// sayReset sends both sides a RST, made of the last numbers seen. A side that has moved on since
// passes over it in silence. So it is also sent a byte that it has, which it answers, however often
// (Linux bounds other answers to one in half a second): the kernel, which knows no such
// connection any more, answers that with an exact RST.
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
		s = pair.voice(v, i)
		s.seq--
		s.known = true
		_ = pair.plane.send(&s)
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

// takeOut deletes the entries that are still the pair's: a new connection of the same
// addresses may have got them, while this one lingered.
func (pair *Pair) takeOut() {
	p := pair.plane
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range pair.keys {
		if p.pairs[pair.keys[i]] != pair {
			continue
		}
		p.objects.Delete(&pair.keys[i])
		if i == 0 {
			p.unrecord(&pair.keys[0])
		}
	}
}

// Finish lets go of a pair that has ended by itself. Its entries stay for a
// while: a last acknowledgement may be lost. Nobody adopts it any more: its end is told by
// this process.
func (pair *Pair) Finish() {
	p := pair.plane
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pairs[pair.keys[0]] == pair { // see takeOut
		p.unrecord(&pair.keys[0])
	}
	p.retired = append(p.retired, retiree{pair, time.Now()})
}
