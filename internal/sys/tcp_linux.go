package sys

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// States of TCPInfo.State.
const (
	TCPEstablished = 1 // no side has ended
	TCPFinWait1    = 4 // this side has ended
	TCPFinWait2    = 5 // this side has ended, and the peer knows
	TCPClosed      = 7 // both have, or the connection was reset
)

// The bits of TCPInfo.Options.
const (
	TCPTimestamps  = 1
	TCPSACK        = 2
	TCPWindowScale = 4
	TCPECN         = 8
	TCPECNSeen     = 16
	TCPUsec        = 64 // timestamps in microseconds, Linux 6.7
)

// TCPInfo is the part of struct tcp_info that can be relied on since Linux 5.4.
type TCPInfo struct {
	State, Options uint8
	SendScale      uint8  // shift of the windows that the peer announces
	ReceiveScale   uint8  // shift of the windows that this side announces
	SendMSS        uint32 // bytes of data in a segment sent now
	PathMTU        uint32
	RTT            uint32 // microseconds
	AdvertisedMSS  uint32 // what this side told the peer, without regard to options
	NotSent        uint32
	BytesReceived  uint64 // in order, acknowledged
	SendWindow     uint32 // the peer's last, in bytes
	ReceiveSpace   uint32 // the most bytes that were read in a round trip
	ReceiveMost    uint32 // the largest window that is announced, in bytes, until more arrives; it is rounded up to the unit of ReceiveScale
	ReceiveWindow  uint32 // the last that was announced to the peer, in bytes; 0 before Linux 6.2
}

// Offsets in struct tcp_info of include/uapi/linux/tcp.h.
const (
	infoOptions       = 5
	infoScales        = 6
	infoSendMSS       = 16
	infoPMTU          = 60
	infoThreshold     = 64 // tcpi_rcv_ssthresh
	infoRTT           = 68
	infoAdvMSS        = 84
	infoSpace         = 96
	infoNotSent       = 144
	infoWindow        = 228
	infoSize          = 232 // Linux 5.4
	infoReceive       = 232
	infoMost          = 236
	infoBytesReceived = 128
)

// ReadTCPInfo is getsockopt(TCP_INFO).
func ReadTCPInfo(fd int) (TCPInfo, error) {
	var b [infoMost]byte
	n := uint32(len(b))
	if err := getsockopt(fd, unix.IPPROTO_TCP, unix.TCP_INFO, unsafe.Pointer(&b), &n); err != nil {
		return TCPInfo{}, err
	}
	if n < infoSize {
		return TCPInfo{}, unix.ENOPROTOOPT
	}
	u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(b[at:]) }
	first, second := b[infoScales]&15, b[infoScales]>>4
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 { // bit fields begin at the other end
		first, second = second, first
	}
	return TCPInfo{
		State: b[0], Options: b[infoOptions], SendScale: first, ReceiveScale: second,
		SendMSS: u32(infoSendMSS), PathMTU: u32(infoPMTU), RTT: u32(infoRTT), AdvertisedMSS: u32(infoAdvMSS),
		NotSent: u32(infoNotSent), SendWindow: u32(infoWindow), ReceiveSpace: u32(infoSpace),
		ReceiveMost: u32(infoThreshold), ReceiveWindow: u32(infoReceive),
		BytesReceived: binary.NativeEndian.Uint64(b[infoBytesReceived:]),
	}, nil
}

// What [SetRepair] sets (CAP_NET_ADMIN).
const (
	RepairOff        = unix.TCP_REPAIR_OFF // and send a window probe
	RepairOn         = unix.TCP_REPAIR_ON
	RepairOffNoProbe = unix.TCP_REPAIR_OFF_NO_WP // Linux 5.0
)

// SetRepair is setsockopt(TCP_REPAIR). As a side effect it changes
// SO_REUSEADDR.
func SetRepair(fd, mode int) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, mode)
}

// Acknowledge has a socket whose bytes are all read say at once what it would acknowledge later
// (TCP_QUICKACK).
func Acknowledge(fd int) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1)
}

// The queues of a TCP socket.
const (
	ReceiveQueue = 1 // TCP_RECV_QUEUE
	SendQueue    = 2 // TCP_SEND_QUEUE
)

// SetRepairQueue says which queue [QueueSeq] is about, in repair mode and
// after it. While the mode is on and the queue is [SendQueue], the kernel takes
// what it has to send for sent.
func SetRepairQueue(fd, queue int) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, queue)
}

// QueueSeq returns rcv_nxt or write_seq (TCP_QUEUE_SEQ), as SetRepairQueue has
// said.
func QueueSeq(fd int) (uint32, error) {
	v, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
	return uint32(v), err
}

// Timestamp returns the TSval that a segment sent now would carry.
func Timestamp(fd int) (uint32, error) {
	v, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_TIMESTAMP)
	return uint32(v), err
}

// MaxSegment is TCP_MAXSEG: in repair mode the MSS that the peer announced,
// else what a segment carries now.
func MaxSegment(fd int) (int, error) {
	return unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG)
}

// SetMaxSegment bounds the MSS that a connection to be made will announce.
func SetMaxSegment(fd, mss int) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, mss)
}

// SetLocalPorts has connect(2), or a bind(2) to any port, take a local port from low to high. EADDRNOTAVAIL
// of these: none of them is free. ENOPROTOOPT: a kernel before 6.3.
func SetLocalPorts(fd int, low, high uint16) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_LOCAL_PORT_RANGE, int(int32(uint32(high)<<16|uint32(low))))
}

// ReuseAddr returns SO_REUSEADDR.
func ReuseAddr(fd int) (int, error) {
	return unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR)
}

// SetReuseAddr sets SO_REUSEADDR.
func SetReuseAddr(fd, v int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, v)
}

// HasULP says whether a protocol such as kTLS sits on the socket.
func HasULP(fd int) bool {
	var b [16]byte
	n := uint32(len(b))
	return getsockopt(fd, unix.IPPROTO_TCP, unix.TCP_ULP, unsafe.Pointer(&b), &n) == nil && n > 0
}

// Unread returns the bytes in the receive queue (SIOCINQ).
func Unread(fd int) (int, error) { return unix.IoctlGetInt(fd, unix.SIOCINQ) }

// Unsent returns the bytes in the send queue that were never sent
// (SIOCOUTQNSD).
func Unsent(fd int) (int, error) { return unix.IoctlGetInt(fd, unix.SIOCOUTQNSD) }

// SetWindowClamp bounds the window that a socket announces, in bytes. It takes
// effect as the announced window is used up, and ends when the receive buffer
// grows: see [FixReceiveBuffer].
func SetWindowClamp(fd, n int) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, n)
}

// FixReceiveBuffer has a socket's receive buffer keep its size, or grow again as
// it is used (SO_BUF_LOCK, Linux 5.14). One whose size was set stays fixed.
func FixReceiveBuffer(fd int, on bool) error {
	const receiveLock = 2 // SOCK_RCVBUF_LOCK
	v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
	if err != nil {
		return err
	}
	if v &^= receiveLock; on {
		v |= receiveLock
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK, v)
}

// SetUserTimeout bounds, in milliseconds, how long what was sent may stay
// unacknowledged (TCP_USER_TIMEOUT).
func SetUserTimeout(fd, ms int) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, ms)
}

// SetUnsentMost has a socket take no more bytes while it has n that were never
// sent (TCP_NOTSENT_LOWAT); 0 is the system's default.
func SetUnsentMost(fd, n int) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, n)
}

// PeerAddr is getpeername(2); invalid for a unix socket.
func PeerAddr(fd int) (netip.AddrPort, error) {
	var sa unix.RawSockaddrAny
	size := uint32(unsafe.Sizeof(sa))
	_, _, e := unix.Syscall(unix.SYS_GETPEERNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)))
	if e != 0 {
		return netip.AddrPort{}, e
	}
	return zonedAddrPort(fd, &sa), nil
}

// RawSocket returns a socket that sends packets with their IP header
// (CAP_NET_RAW) and receives none.
func RawSocket(family int) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return -1, err
	}
	if family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_HDRINCL, 1); err != nil {
			_ = unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

// SendPacket sends a packet, IP header included, to where the routes lead.
func SendPacket(fd int, packet []byte, to netip.Addr) error {
	if to.Is4() {
		return unix.Sendto(fd, packet, unix.MSG_DONTWAIT, &unix.SockaddrInet4{Addr: to.As4()})
	}
	zone, err := zoneIndex(to.Zone())
	if err != nil {
		return err
	}
	return unix.Sendto(fd, packet, unix.MSG_DONTWAIT, &unix.SockaddrInet6{Addr: to.As16(), ZoneId: zone})
}

// Monotonic is CLOCK_MONOTONIC in nanoseconds, the clock of BPF programs.
func Monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // EINVAL: no such clock; there is
	return ts.Nano()
}

// MountBPF mounts a BPF file system on an existing directory.
func MountBPF(dir string) error { return unix.Mount("bpf", dir, "bpf", 0, "mode=0700") }

// IsBPF says whether dir is in a BPF file system.
func IsBPF(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && uint32(st.Type) == unix.BPF_FS_MAGIC
}

func getsockopt(fd, level, name int, value unsafe.Pointer, size *uint32) error {
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(value), uintptr(unsafe.Pointer(size)), 0)
	if e != 0 {
		return e
	}
	return nil
}

// AddrPort returns an Address of TCP; invalid for a unix socket.
func (s *Address) AddrPort() netip.AddrPort {
	var sa unix.RawSockaddrAny
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&sa)), unsafe.Sizeof(sa)), s.raw[:])
	return addrPort(&sa)
}
