//go:build !linux

package netbench

import (
	"net"
	"time"
)

const canAccount = false

func takeUsage(*topology, *family, []int, bool) (usage, error) { return usage{}, nil }

func takeHoldings(*family) (holdings, error) { return holdings{}, nil }

func (t *topology) counters() (kernelCounters, error) { return kernelCounters{}, nil }

func tcpMemoryShort() bool { return false }

func pipeSizeLimit() int { return 64 << 10 }

func reusesTimeWait() bool { return false }

// isListening has no way to look from outside: it connects.
func isListening(_ int, address string) bool {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
