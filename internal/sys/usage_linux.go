package sys

import (
	"time"

	"golang.org/x/sys/unix"
)

// Transport is the part of TCP_INFO that a measurement reports.
type Transport struct {
	RTT         time.Duration // smoothed
	Cwnd        int           // segments
	Retransmits int           // segments, over the connection's life
}

// TransportInfo asks a TCP socket (TCP_INFO).
func TransportInfo(fd int) (Transport, error) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return Transport{}, err
	}
	return Transport{
		RTT:         time.Duration(info.Rtt) * time.Microsecond,
		Cwnd:        int(info.Snd_cwnd),
		Retransmits: int(info.Total_retrans),
	}, nil
}

// SetTimerSlack lets the kernel be so late with the calling thread's timers;
// the default is 50 µs. The goroutine must be locked to its thread.
func SetTimerSlack(d time.Duration) error {
	return unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(max(d, 1)), 0, 0, 0)
}

// SetBindNoPort has bind(2) to port 0 leave the choice of the port to
// connect(2), which knows the whole four-tuple (IP_BIND_ADDRESS_NO_PORT,
// Linux 4.2).
func SetBindNoPort(fd int) error {
	return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
}
