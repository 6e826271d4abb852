package netbench

import "time"

// usage is what has been used since some point in the past. Only differences
// mean something. Its parts are not read at the same moment: each has its own.
type usage struct {
	proxy   groupUsage
	load    groupUsage // source and sink
	machine machineUsage
	kernel  kernelCounters
}

// groupUsage is that of some processes and of the children that they have
// waited for; in a control group, of all that ever were in it.
type groupUsage struct {
	at       time.Time
	cpu      float64 // seconds, user and system
	live     float64 // of these, by threads that are alive
	switches int64   // context switches of threads that are alive
	threads  map[int]struct{}
	// uncounted is set in a difference if threads have ended meanwhile: their
	// switches are in no file.
	uncounted bool
}

// machineUsage is that of all processors, in seconds.
type machineUsage struct {
	at      time.Time
	cpus    int
	ticked  float64 // user, system, hard and soft interrupts, sampled at the clock's ticks
	busy    float64 // of a difference: all but idle and stolen time, which are measured
	softirq float64 // sampled, too
	irq     float64
	idle    float64
	steal   float64
	ipis    int64 // inter-processor interrupts
}

// kernelCounters are those of all namespaces of the topology.
type kernelCounters struct {
	retransmits int64 // segments
	shortages   int64 // of memory for TCP: how often it began, and connections that it has cost
}

func (u machineUsage) total() float64 { return u.busy + u.idle + u.steal }

func (u usage) since(earlier usage) usage {
	return usage{
		proxy:   u.proxy.since(earlier.proxy),
		load:    u.load.since(earlier.load),
		machine: u.machine.since(earlier.machine),
		kernel: kernelCounters{
			retransmits: u.kernel.retransmits - earlier.kernel.retransmits,
			shortages:   u.kernel.shortages - earlier.kernel.shortages,
		},
	}
}

func (g groupUsage) since(earlier groupUsage) groupUsage {
	d := groupUsage{
		at: g.at, cpu: g.cpu - earlier.cpu, live: g.live - earlier.live,
		switches: g.switches - earlier.switches, threads: g.threads,
	}
	for thread := range earlier.threads {
		if _, alive := g.threads[thread]; !alive {
			d.uncounted = true
		}
	}
	// Some may have come and gone in between: they have left their time.
	const unsure, part = 0.008, 0.02 // seconds: running threads have their last tick not yet accounted
	if dead := d.cpu - d.live; dead > unsure && dead > part*d.cpu {
		d.uncounted = true
	}
	return d
}

func (u machineUsage) since(earlier machineUsage) machineUsage {
	d := machineUsage{
		at: u.at, cpus: u.cpus,
		ticked:  u.ticked - earlier.ticked,
		softirq: u.softirq - earlier.softirq,
		irq:     u.irq - earlier.irq,
		idle:    u.idle - earlier.idle,
		steal:   u.steal - earlier.steal,
		ipis:    u.ipis - earlier.ipis,
	}
	d.busy = d.ticked
	if u.cpus == earlier.cpus {
		// Work that comes and goes between two ticks is not missed this way.
		all := u.at.Sub(earlier.at).Seconds() * float64(u.cpus)
		d.busy = max(all-d.idle-d.steal, 0)
	}
	return d
}

// seconds is how long lies between two readings of the same part.
func seconds(from, to time.Time) float64 { return to.Sub(from).Seconds() }

// holdings is what the processes of a group hold at a moment.
type holdings struct {
	memory      int64 // bytes resident, shared ones divided among the sharers
	kernel      int64 // bytes of the whole machine's kernel: slab, stacks, page tables, per-CPU
	descriptors int
	pipes       int // each has two ends, and counts once
	largestPipe int // bytes granted
	processes   int
}
