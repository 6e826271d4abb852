package netbench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/sys"
)

// canAccount tells whether this system says what processes use.
const canAccount = true

// tick is the unit of times in /proc: USER_HZ, the same on every architecture
// that Go runs on.
const tick = 10 * time.Millisecond

// takeUsage reads the counters. The machine's are read next to what is
// measured, so that the work of reading the others is not in them.
func takeUsage(t *topology, proxy *family, load []int, begin bool) (u usage, err error) {
	processes := func() error {
		if u.proxy, err = proxy.usage(); err == nil {
			u.load = usageOf(load...)
			u.kernel, err = t.counters()
		}
		return err
	}
	if begin {
		if err := processes(); err != nil {
			return u, err
		}
	}
	if u.machine, err = takeMachine(); err != nil {
		return u, err
	}
	if !begin {
		err = processes()
	}
	return u, err
}

// procStat is a line of /proc/PID/stat.
type procStat struct{ fields []string } // from the third on

const (
	fieldState  = 0
	fieldPpid   = 4 - 3
	fieldPgrp   = 5 - 3
	fieldUtime  = 14 - 3
	fieldCstime = 17 - 3
	fieldStart  = 22 - 3
)

func readStat(pid int) (procStat, error) {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	// The command's name may contain anything; its last parenthesis ends it.
	stat := procStat{strings.Fields(string(line[bytes.LastIndexByte(line, ')')+1:]))}
	if len(stat.fields) <= fieldStart {
		return procStat{}, fmt.Errorf("read /proc/%d/stat: %d fields", pid, len(stat.fields))
	}
	return stat, nil
}

// usageOf sums what processes have used, with the children that they have
// waited for.
func usageOf(pids ...int) groupUsage {
	g := groupUsage{at: time.Now(), threads: map[int]struct{}{}}
	for _, pid := range pids {
		stat, err := readStat(pid)
		if err != nil {
			continue // it has just ended
		}
		own, children := 0.0, 0.0
		for i := fieldUtime; i <= fieldCstime; i++ {
			ticks, _ := strconv.ParseInt(stat.fields[i], 10, 64)
			seconds := float64(ticks) * tick.Seconds()
			if i < fieldUtime+2 {
				own += seconds
			} else {
				children += seconds
			}
		}
		exact := g.addThreads(pid)
		g.live += exact
		// The first counts in ticks, the second loses threads that have ended.
		g.cpu += max(own, exact) + children
	}
	return g
}

// addThreads adds the switches of a process's live threads, and returns the
// seconds that they have used.
func (g *groupUsage) addThreads(pid int) (seconds float64) {
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, entry := range tasks {
		task := fmt.Sprintf("/proc/%d/task/%s", pid, entry.Name())
		if tid, err := strconv.Atoi(entry.Name()); err == nil {
			g.threads[tid] = struct{}{}
		}
		if line, err := os.ReadFile(task + "/schedstat"); err == nil {
			first, _, _ := strings.Cut(string(line), " ")
			ns, _ := strconv.ParseInt(first, 10, 64)
			seconds += float64(ns) / 1e9
		}
		if status, err := os.ReadFile(task + "/status"); err == nil {
			for line := range strings.Lines(string(status)) {
				if name, value, _ := strings.Cut(line, ":"); strings.HasSuffix(name, "voluntary_ctxt_switches") {
					n, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
					g.switches += n
				}
			}
		}
	}
	return seconds
}

func takeMachine() (m machineUsage, err error) {
	stat, err := os.ReadFile("/proc/stat")
	at := time.Now()
	if err != nil {
		return m, fmt.Errorf("read processor times: %w", err)
	}
	first, rest, _ := strings.Cut(string(stat), "\n")
	// cpu user nice system idle iowait irq softirq steal guest guest_nice
	fields := strings.Fields(first)
	const steal = 8
	if len(fields) <= steal {
		return m, fmt.Errorf("read processor times: %q", first)
	}
	var seconds [steal + 1]float64
	for i := 1; i <= steal; i++ {
		ticks, _ := strconv.ParseInt(fields[i], 10, 64)
		seconds[i] = float64(ticks) * tick.Seconds()
	}
	m = machineUsage{
		at:      at,
		idle:    seconds[4] + seconds[5],
		irq:     seconds[6],
		softirq: seconds[7],
		steal:   seconds[8],
	}
	m.ticked = seconds[1] + seconds[2] + seconds[3] + m.irq + m.softirq
	for line := range strings.Lines(rest) {
		if !strings.HasPrefix(line, "cpu") {
			break
		}
		m.cpus++ // of those that are online
	}
	m.ipis = takeIPIs()
	return m, nil
}

// takeIPIs counts the interrupts by which one processor wakes another.
func takeIPIs() (n int64) {
	content, err := os.ReadFile("/proc/interrupts")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(content)) {
		name, counts, _ := strings.Cut(strings.TrimSpace(line), ":")
		// x86, and arm64 ("Rescheduling interrupts", "Function call interrupts").
		if name != "RES" && name != "CAL" && name != "IPI0" && name != "IPI1" {
			continue
		}
		for _, field := range strings.Fields(counts) {
			count, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				break // the description
			}
			n += count
		}
	}
	return n
}

// counters reads those of all namespaces.
func (t *topology) counters() (sum kernelCounters, err error) {
	read := func(name string) ([]byte, error) { return os.ReadFile("/proc/net/" + name) }
	readers := []func(string) ([]byte, error){read}
	if t.chain != nil {
		readers = []func(string) ([]byte, error){t.chain.A.ReadProcNet, t.chain.B.ReadProcNet, t.chain.C.ReadProcNet}
	}
	for _, read := range readers {
		snmp, err := read("snmp")
		if err != nil {
			return sum, fmt.Errorf("read retransmissions: %w", err)
		}
		sum.retransmits += parseCounter(snmp, "Tcp:", "RetransSegs")
		extended, err := read("netstat")
		if err != nil {
			return sum, fmt.Errorf("read counters of TCP: %w", err)
		}
		sum.shortages += parseCounter(extended, "TcpExt:", "TCPMemoryPressures") +
			parseCounter(extended, "TcpExt:", "TCPAbortOnMemory")
	}
	return sum, nil
}

// parseCounter finds a counter in /proc/net/snmp or netstat: a line of names
// and a line of values, both beginning with the protocol.
func parseCounter(content []byte, protocol, counter string) int64 {
	var names []string
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != protocol {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, name := range names {
			if name == counter && i < len(fields) {
				n, _ := strconv.ParseInt(fields[i], 10, 64)
				return n
			}
		}
	}
	return 0
}

// tcpMemoryShort tells whether TCP as a whole now has more memory than the
// kernel wants it to; false where that can't be seen.
func tcpMemoryShort() bool {
	limits, err := os.ReadFile("/proc/sys/net/ipv4/tcp_mem")
	if err != nil {
		return false // in a namespace other than the first
	}
	used, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return false
	}
	fields := strings.Fields(string(limits)) // low, pressure, high, in pages
	if len(fields) != 3 {
		return false
	}
	pressure, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(used)) {
		words := strings.Fields(line) // TCP: inuse 1 orphan 0 tw 0 alloc 4 mem 314
		if n := len(words); n > 2 && words[0] == "TCP:" && words[n-2] == "mem" {
			pages, err := strconv.ParseInt(words[n-1], 10, 64)
			return err == nil && pages > pressure
		}
	}
	return false
}

// takeHoldings looks at what a family holds now.
func takeHoldings(f *family) (h holdings, err error) {
	pids, err := f.pids()
	if err != nil {
		return h, err
	}
	pipes := map[string]string{} // name to a path that opens it
	for _, pid := range pids {
		h.processes++
		h.memory += resident(pid)
		dir := fmt.Sprintf("/proc/%d/fd", pid)
		fds, _ := os.ReadDir(dir)
		for _, fd := range fds {
			path := filepath.Join(dir, fd.Name())
			target, err := os.Readlink(path)
			if err != nil {
				continue
			}
			h.descriptors++
			if strings.HasPrefix(target, "pipe:") {
				pipes[target] = path
			}
		}
	}
	h.pipes = len(pipes)
	for _, path := range pipes {
		h.largestPipe = max(h.largestPipe, pipeSize(path))
	}
	h.kernel, err = kernelMemory()
	return h, err
}

// resident returns a process's proportional set size, or its resident set
// where that is not told.
func resident(pid int) int64 {
	if rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid)); err == nil {
		if kib, ok := keyed(rollup, "Pss"); ok {
			return kib << 10
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	kib, _ := keyed(status, "VmRSS")
	return kib << 10
}

func kernelMemory() (int64, error) {
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("read kernel memory: %w", err)
	}
	var sum int64
	for _, key := range []string{"Slab", "KernelStack", "PageTables", "Percpu"} {
		kib, _ := keyed(info, key)
		sum += kib << 10
	}
	return sum, nil
}

// keyed finds "Key:  123 kB".
func keyed(content []byte, key string) (int64, bool) {
	for line := range strings.Lines(string(content)) {
		name, value, _ := strings.Cut(line, ":")
		if fields := strings.Fields(value); name == key && len(fields) > 0 {
			n, err := strconv.ParseInt(fields[0], 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// pipeSize opens a pipe of another process for a moment; 0 if it may not.
func pipeSize(path string) int {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer syscall.Close(fd)
	size, err := sys.PipeSize(fd)
	if err != nil {
		return 0
	}
	return size
}

// pipeSizeLimit is what this user may give a pipe.
func pipeSizeLimit() int {
	const fallback = 64 << 10
	content, err := os.ReadFile("/proc/sys/fs/pipe-max-size")
	if err != nil {
		return fallback
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		return fallback
	}
	return n
}

// reusesTimeWait tells whether connections over loopback may take a port whose
// last connection is in TIME_WAIT.
func reusesTimeWait() bool {
	content, err := os.ReadFile("/proc/sys/net/ipv4/tcp_tw_reuse")
	return err == nil && strings.TrimSpace(string(content)) != "0"
}

// isListening tells whether somebody listens at address in the namespace of a
// process.
func isListening(pid int, address string) bool {
	host, portText, err := splitIPv4(address)
	if err != nil {
		return false
	}
	// Bytes of an address are in the order of the processor, ports are not.
	want := []string{
		fmt.Sprintf("%02X%02X%02X%02X:%04X", host[3], host[2], host[1], host[0], portText),
		fmt.Sprintf("00000000:%04X", portText),
		fmt.Sprintf("%s:%04X", strings.Repeat("0", 32), portText), // [::]
		// An IPv4 address at an IPv6 socket: Go's listeners are often one.
		fmt.Sprintf("0000000000000000FFFF0000%02X%02X%02X%02X:%04X", host[3], host[2], host[1], host[0], portText),
	}
	const listen = "0A"
	for _, name := range []string{"tcp", "tcp6"} {
		content, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, name))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(content)) {
			fields := strings.Fields(line)
			if len(fields) < 4 || fields[3] != listen {
				continue
			}
			for _, w := range want {
				if fields[1] == w {
					return true
				}
			}
		}
	}
	return false
}
