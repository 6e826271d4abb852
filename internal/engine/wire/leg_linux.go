package wire

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/spliced-io/spliced/internal/bpf"
	"github.com/spliced-io/spliced/internal/sys"
)

// A leg is one of a pair's connections, as seen from this machine.
type leg struct {
	fd          int
	local, peer netip.AddrPort
	info        sys.TCPInfo
	peerMSS     int // as the peer announced it
	reuse       int // SO_REUSEADDR, which repair mode changes
	hop         hop // the way to the peer

	// At the hand-over.
	received uint32 // rcv_nxt
	stamp    uint32 // the clock of the timestamps sent
	pace     pace
	window   int  // as Bound has set it last
	narrowed bool // it is smaller now
}

const (
	headers4 = 40 // bytes of IP and TCP header
	headers6 = 60
)

// inspect fills in a leg, or says why it can't be spliced.
func (l *leg) inspect(fd int) (Refusal, error) {
	l.fd = fd
	protocol, err := sys.SocketProtocol(fd)
	if err != nil {
		return Broken, err
	}
	if protocol != syscall.IPPROTO_TCP || sys.HasULP(fd) {
		return NotTCP, nil
	}
	if sys.IsTransparent(fd) {
		return Transparent, nil // no route begins at its address, and no socket could get it back
	}
	if l.local, err = sys.LocalAddr(fd); err != nil {
		return Broken, err
	}
	if l.peer, err = sys.PeerAddr(fd); err != nil || !l.local.IsValid() || !l.peer.IsValid() {
		return Ended, err
	}
	if l.info, err = sys.ReadTCPInfo(fd); err != nil {
		return Broken, err
	}
	if l.info.State != sys.TCPEstablished {
		return Ended, nil
	}
	if l.info.Options&sys.TCPUsec != 0 {
		return Options, nil
	}
	if l.reuse, err = sys.ReuseAddr(fd); err != nil {
		return Broken, err
	}
	return l.measure()
}

// measure reads what only repair mode tells. The queue is the one of the
// reader: with the sender's, the kernel would take what it still has to send
// for sent.
func (l *leg) measure() (Refusal, error) {
	if err := sys.SetRepair(l.fd, sys.RepairOn); err != nil {
		return Denied, err
	}
	defer l.leaveRepair(sys.RepairOffNoProbe)
	if err := sys.SetRepairQueue(l.fd, sys.ReceiveQueue); err != nil {
		return Broken, err
	}
	var err error
	if l.peerMSS, err = sys.MaxSegment(l.fd); err != nil {
		return Broken, err
	}
	// Stays right after repair mode: the queue stays chosen.
	if l.received, err = sys.QueueSeq(l.fd); err != nil {
		return Broken, err
	}
	return 0, nil
}

func (l *leg) leaveRepair(how int) {
	_ = sys.SetRepair(l.fd, how)
	_ = sys.SetReuseAddr(l.fd, l.reuse)
}

// probe makes the peer send an acknowledgement: a pair that is idle would
// never be seen otherwise.
func (l *leg) probe() {
	if sys.SetRepair(l.fd, sys.RepairOn) == nil {
		_ = sys.SetRepairQueue(l.fd, sys.ReceiveQueue)
		l.leaveRepair(sys.RepairOff)
	}
}

// written is the number of the next byte that will be written. Nothing may be
// unsent: see [sys.SetRepairQueue].
func (l *leg) written() (uint32, error) {
	if err := sys.SetRepair(l.fd, sys.RepairOn); err != nil {
		return 0, err
	}
	defer l.leaveRepair(sys.RepairOffNoProbe)
	if err := sys.SetRepairQueue(l.fd, sys.SendQueue); err != nil {
		return 0, err
	}
	n, err := sys.QueueSeq(l.fd)
	// Whatever happens: repair mode must not end with that queue chosen.
	return n, errors.Join(err, sys.SetRepairQueue(l.fd, sys.ReceiveQueue))
}

// readTries bounds the looks at a socket that receives in between.
const readTries = 1000

// read is the number of the next byte that will be read. EAGAIN: it receives
// faster than one can look.
func (l *leg) read() (uint32, error) {
	was, err := sys.QueueSeq(l.fd)
	for range readTries {
		if err != nil {
			return 0, err
		}
		unread, err := sys.Unread(l.fd)
		if err != nil {
			return 0, err
		}
		is, err := sys.QueueSeq(l.fd)
		if err == nil && is == was {
			return is - uint32(unread), nil
		}
		was = is
	}
	return 0, syscall.EAGAIN
}

// look reads what changes all the time. ENOTCONN: the connection ends.
func (l *leg) look() (err error) {
	if l.info, err = sys.ReadTCPInfo(l.fd); err != nil {
		return err
	}
	if l.info.State != sys.TCPEstablished {
		return syscall.ENOTCONN
	}
	if l.received, err = sys.QueueSeq(l.fd); err != nil {
		return err
	}
	l.stamp, err = sys.Timestamp(l.fd)
	return err
}

// dissolve makes the socket unconnected without a word to the peer.
func (l *leg) dissolve() {
	_ = sys.SetRepair(l.fd, sys.RepairOn)
	_ = sys.Disconnect(l.fd)
	l.leaveRepair(sys.RepairOffNoProbe)
}

// key is the one of the packets that come from the peer.
func (l *leg) key() bpf.WireKey { return bpf.WireKeyOf(l.peer, l.local) }

func (l *leg) scaled() bool { return l.info.Options&sys.TCPWindowScale != 0 }

// sendScale is the shift of the windows that the peer announces.
func (l *leg) sendScale() uint8 {
	if l.scaled() {
		return l.info.SendScale
	}
	return 0
}

func (l *leg) stamped() bool { return l.info.Options&sys.TCPTimestamps != 0 }

// compare says whether the two can talk to each other. The error says more.
func compare(a, b *leg) (Refusal, error) {
	if a.local.Addr().Is4() != b.local.Addr().Is4() {
		return Families, nil
	}
	const alike = sys.TCPTimestamps | sys.TCPSACK | sys.TCPECN
	if (a.info.Options^b.info.Options)&alike != 0 {
		return Options, nil
	}
	for i, l := range [...]*leg{a, b} {
		other := [...]*leg{b, a}[i]
		if sends, takes := l.sends(), other.takes(); sends > takes {
			return SegmentSize, &SegmentError{Side: i, Sends: sends, Takes: takes}
		}
	}
	return 0, nil
}

// A SegmentError says of which size the segments are that don't fit.
type SegmentError struct {
	Side         int // 0: a sends them; 1: b
	Sends, Takes int // bytes of payload and TCP options
}

func (e *SegmentError) Error() string {
	return fmt.Sprintf("segments of up to %d bytes don't fit the other side, which takes %d", e.Sends, e.Takes)
}

// sends is the size of the segments that the peer can be expected to send: it was
// told what it may, and has said itself what fits its interface. One that sends more
// all the same is told "too big" by the way there, if they are.
func (l *leg) sends() int { return min(int(l.info.AdvertisedMSS), l.peerMSS) }

// takes is the size of the segments that fit the peer and the way there.
func (l *leg) takes() int {
	headers := headers6
	if l.local.Addr().Is4() {
		headers = headers4
	}
	return min(l.peerMSS, int(l.info.PathMTU)-headers)
}
