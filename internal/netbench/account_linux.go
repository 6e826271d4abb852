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
	"github.com/spliced-io/spliced/internal/testnet"
)

// canAccount tells whether this system says what processes use.
const canAccount = true

// tick is the unit of times in /proc: USER_HZ, the same on every architecture
// that Go runs on.
const tick = 10 * time.Millisecond

// takeUsage reads the counters. A group of 0 has no processes.
func takeUsage(t *topology, proxy int, load ...int) (usage, error) {
	u := usage{at: time.Now()}
	groups, err := members(append([]int{proxy}, load...))
	if err != nil {
		return u, err
	}
	u.proxy = sumUsage(groups[proxy])
	for _, group := range load {
		g := sumUsage(groups[group])
		u.load.cpu += g.cpu
		u.load.switches += g.switches
	}
	if u.machine, err = takeMachine(); err != nil {
		return u, err
	}
	u.retransmits, err = t.retransmits()
	return u, err
}

// procStat is a line of /proc/PID/stat.
type procStat struct {
	pid    int
	fields []string // from the third on
}

const (
	fieldPgrp   = 5 - 3
	fieldUtime  = 14 - 3
	fieldCstime = 17 - 3
)

// members returns the processes of each group.
func members(groups []int) (map[int][]procStat, error) {
	found := make(map[int][]procStat, len(groups))
	for _, group := range groups {
		if group != 0 {
			found[group] = nil
		}
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile("/proc/" + entry.Name() + "/stat")
		if err != nil {
			continue // it has just ended
		}
		// The command's name may contain anything; its last parenthesis ends it.
		stat := procStat{pid, strings.Fields(string(line[bytes.LastIndexByte(line, ')')+1:]))}
		if len(stat.fields) <= fieldCstime {
			continue
		}
		group, err := strconv.Atoi(stat.fields[fieldPgrp])
		if err != nil {
			continue
		}
		if _, ok := found[group]; ok {
			found[group] = append(found[group], stat)
		}
	}
	return found, nil
}

func sumUsage(processes []procStat) (g groupUsage) {
	for _, p := range processes {
		own, children := 0.0, 0.0
		for i := fieldUtime; i <= fieldCstime; i++ {
			ticks, _ := strconv.ParseInt(p.fields[i], 10, 64)
			seconds := float64(ticks) * tick.Seconds()
			if i < fieldUtime+2 {
				own += seconds
			} else {
				children += seconds
			}
		}
		exact, switches := threads(p.pid)
		// The first counts in ticks, the second loses threads that have ended.
		g.cpu += max(own, exact) + children
		g.switches += switches
	}
	return g
}

// threads sums what the live threads of a process have used.
func threads(pid int) (seconds float64, switches int64) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	for _, task := range tasks {
		if line, err := os.ReadFile(task + "/schedstat"); err == nil {
			first, _, _ := strings.Cut(string(line), " ")
			ns, _ := strconv.ParseInt(first, 10, 64)
			seconds += float64(ns) / 1e9
		}
		if status, err := os.ReadFile(task + "/status"); err == nil {
			for line := range strings.Lines(string(status)) {
				if name, value, _ := strings.Cut(line, ":"); strings.HasSuffix(name, "voluntary_ctxt_switches") {
					n, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
					switches += n
				}
			}
		}
	}
	return seconds, switches
}

func takeMachine() (m machineUsage, err error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return m, fmt.Errorf("read processor times: %w", err)
	}
	first, _, _ := strings.Cut(string(stat), "\n")
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
		idle:    seconds[4] + seconds[5],
		irq:     seconds[6],
		softirq: seconds[7],
		steal:   seconds[8],
	}
	m.busy = seconds[1] + seconds[2] + seconds[3] + m.irq + m.softirq
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

// retransmits counts segments sent again in all namespaces.
func (t *topology) retransmits() (int64, error) {
	if t.chain == nil {
		content, err := os.ReadFile("/proc/net/snmp")
		if err != nil {
			return 0, fmt.Errorf("read retransmissions: %w", err)
		}
		return parseRetransmits(content), nil
	}
	var sum int64
	for _, ns := range []*testnet.Namespace{t.chain.A, t.chain.B, t.chain.C} {
		content, err := ns.ReadProcNet("snmp")
		if err != nil {
			return 0, fmt.Errorf("read retransmissions: %w", err)
		}
		sum += parseRetransmits(content)
	}
	return sum, nil
}

// parseRetransmits finds RetransSegs in /proc/net/snmp: a line of names and a
// line of values, both beginning with "Tcp:".
func parseRetransmits(content []byte) int64 {
	var names []string
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "Tcp:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, name := range names {
			if name == "RetransSegs" && i < len(fields) {
				n, _ := strconv.ParseInt(fields[i], 10, 64)
				return n
			}
		}
	}
	return 0
}

// takeHoldings looks at what a group holds now; a group of 0 has nothing.
func takeHoldings(group int) (h holdings, err error) {
	groups, err := members([]int{group})
	if err != nil {
		return h, err
	}
	pipes := map[string]string{} // name to a path that opens it
	for _, p := range groups[group] {
		h.processes++
		h.memory += resident(p.pid)
		dir := fmt.Sprintf("/proc/%d/fd", p.pid)
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
