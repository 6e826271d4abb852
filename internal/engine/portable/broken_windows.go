package portable

import (
	"net"
	"syscall"
)

// isBrokenHere knows the winsock numbers behind the names of isBroken.
func isBrokenHere(errno syscall.Errno) bool {
	switch errno {
	case 10050, 10051, 10052, 10053, 10054, 10057, 10058, 10060, 10061, 10064, 10065,
		syscall.ERROR_BROKEN_PIPE, syscall.ERROR_NETNAME_DELETED:
		return true
	}
	return false
}

// vanished is not known here: a RST whose error a write took looks like a FIN.
func vanished(*net.TCPConn) error { return nil }

func unacknowledged(*net.TCPConn) int { return 0 }
