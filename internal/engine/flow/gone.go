package flow

import "syscall"

// PeerGone says whether errno, of a call on a connected socket, means that the
// peer, or the way to it, is gone, rather than that this machine has a problem.
func PeerGone(errno syscall.Errno) bool {
	switch errno {
	case syscall.ECONNRESET, syscall.EPIPE, syscall.ETIMEDOUT, syscall.ECONNABORTED, syscall.ENOTCONN:
		return true
	// What ICMP and ICMPv6 make of an established connection that is over.
	case syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EHOSTDOWN, syscall.ECONNREFUSED,
		syscall.ENOPROTOOPT, syscall.EPROTO:
		return true
	}
	return false
}
