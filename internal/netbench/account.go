package netbench

import "time"

// usage is what has been used since some point in the past. Only differences
// mean something.
type usage struct {
	at      time.Time
	proxy   groupUsage
	load    groupUsage // source and sink
	machine machineUsage
	// retransmits counts segments in all namespaces of the topology.
	retransmits int64
}

// groupUsage is that of the processes of a group, their threads and the
// children that they have waited for.
type groupUsage struct {
	cpu      float64 // seconds, user and system
	switches int64   // context switches
}

// machineUsage is that of all processors, in seconds.
type machineUsage struct {
	busy    float64 // user, system, hard and soft interrupts
	softirq float64
	irq     float64
	idle    float64
	steal   float64
	ipis    int64 // inter-processor interrupts
}

func (u machineUsage) total() float64 { return u.busy + u.idle + u.steal }

func (u usage) since(earlier usage) usage {
	return usage{
		at:          u.at,
		proxy:       u.proxy.since(earlier.proxy),
		load:        u.load.since(earlier.load),
		retransmits: u.retransmits - earlier.retransmits,
		machine: machineUsage{
			busy:    u.machine.busy - earlier.machine.busy,
			softirq: u.machine.softirq - earlier.machine.softirq,
			irq:     u.machine.irq - earlier.machine.irq,
			idle:    u.machine.idle - earlier.machine.idle,
			steal:   u.machine.steal - earlier.machine.steal,
			ipis:    u.machine.ipis - earlier.machine.ipis,
		},
	}
}

func (g groupUsage) since(earlier groupUsage) groupUsage {
	return groupUsage{cpu: g.cpu - earlier.cpu, switches: g.switches - earlier.switches}
}

// holdings is what the processes of a group hold at a moment.
type holdings struct {
	memory      int64 // bytes resident, shared ones divided among the sharers
	kernel      int64 // bytes of the whole machine's kernel: slab, stacks, page tables, per-CPU
	descriptors int
	pipes       int // each has two ends, and counts once
	largestPipe int // bytes granted
	processes   int
}
