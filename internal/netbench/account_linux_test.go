package netbench

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestCountersAreFound(t *testing.T) {
	const snmp = `Ip: Forwarding DefaultTTL
Ip: 1 64
Tcp: RtoAlgorithm RtoMin ActiveOpens RetransSegs InErrs
Tcp: 1 200 7 42 0
Udp: InDatagrams RetransSegs
Udp: 1 99
`
	if got := parseCounter([]byte(snmp), "Tcp:", "RetransSegs"); got != 42 {
		t.Errorf("got %d, want 42", got)
	}
	if got := parseCounter([]byte(snmp), "Udp:", "RetransSegs"); got != 99 {
		t.Errorf("got %d, want 99", got)
	}
	if got := parseCounter([]byte("Tcp: RetransSegs\n"), "Tcp:", "RetransSegs"); got != 0 {
		t.Errorf("without values: %d", got)
	}
	// This kernel knows them by these names.
	for file, counters := range map[string][]string{
		"snmp":    {"Tcp:", "RetransSegs"},
		"netstat": {"TcpExt:", "TCPMemoryPressures", "TCPAbortOnMemory"},
	} {
		content, err := os.ReadFile("/proc/net/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, counter := range counters[1:] {
			if !strings.Contains(string(content), " "+counter+" ") {
				t.Errorf("/proc/net/%s has no %s", file, counter)
			}
		}
	}
}

func TestSwitchesOfWhatHasEndedAreMissed(t *testing.T) {
	threads := func(ids ...int) map[int]struct{} {
		m := map[int]struct{}{}
		for _, id := range ids {
			m[id] = struct{}{}
		}
		return m
	}
	before := groupUsage{cpu: 1, live: 1, switches: 100, threads: threads(1, 2)}
	for _, test := range []struct {
		name  string
		after groupUsage
		want  bool
	}{
		{"the same threads", groupUsage{cpu: 2, live: 2, switches: 200, threads: threads(1, 2)}, false},
		{"one more", groupUsage{cpu: 2, live: 2, switches: 200, threads: threads(1, 2, 3)}, false},
		{"one less", groupUsage{cpu: 2, live: 2, switches: 50, threads: threads(1)}, true},
		{"others have come and gone", groupUsage{cpu: 2, live: 1.9, switches: 200, threads: threads(1, 2)}, true},
	} {
		if got := test.after.since(before).uncounted; got != test.want {
			t.Errorf("%s: uncounted is %t, want %t", test.name, got, test.want)
		}
	}
}

// The machine's processor time is what its processors were not idle, however
// short the work is: two threads that work for a fraction of a tick, and rest.
func TestMachineIsNoLessThanItsParts(t *testing.T) {
	const work, rest, rounds = 150 * time.Microsecond, 100 * time.Microsecond, 1000
	begin, err := takeUsage(&topology{name: TopologyLoopback}, nil, []int{os.Getpid()}, true)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			runtime.LockOSThread()
			for range rounds {
				for start := time.Now(); time.Since(start) < work; {
				}
				sleepUntil(time.Now().Add(rest))
			}
		})
	}
	wg.Wait()
	end, err := takeUsage(&topology{name: TopologyLoopback}, nil, []int{os.Getpid()}, false)
	if err != nil {
		t.Fatal(err)
	}
	used := end.since(begin)
	const resolution = 0.03 // idle and stolen time are told in ticks, at both ends
	if parts := used.load.cpu; parts > used.machine.busy+used.machine.steal+resolution {
		t.Errorf("the machine was busy for %.3f s, and this process alone for %.3f s: %+v", used.machine.busy, parts, used.machine)
	}
	if used.machine.busy <= 0 || used.machine.total() < used.machine.busy {
		t.Errorf("implausible: %+v", used.machine)
	}
}

func TestListenersAreSeen(t *testing.T) {
	for _, address := range []string{"127.83.9.9:0", "0.0.0.0:0", "[::]:0", "[::ffff:127.83.9.9]:0"} {
		ln, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_, port, err := net.SplitHostPort(ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		at := net.JoinHostPort("127.83.9.9", port)
		if !isListening(os.Getpid(), at) {
			t.Errorf("%s: nobody seen at %s", address, at)
		}
		ln.Close()
		if isListening(os.Getpid(), at) {
			t.Errorf("%s: still seen at %s", address, at)
		}
	}
}

// families calls test with a family in a control group, where there may be one,
// and with one without.
func families(t *testing.T, test func(t *testing.T, f *family)) {
	t.Helper()
	own := ""
	start := func(t *testing.T, groups *cgroups) {
		f, err := newFamily(groups)
		if err != nil {
			t.Fatal(err)
		}
		if f.cgroup != nil {
			own = f.cgroup.path
		}
		defer func() {
			if err := f.end(); err != nil {
				t.Error(err)
			}
		}()
		test(t, f)
	}
	t.Run("control group", func(t *testing.T) {
		groups, err := findCgroups()
		if err != nil {
			t.Skip(err)
		}
		start(t, groups)
		// Other runs on this machine have groups beside it.
		if own != "" && exists(own) {
			t.Errorf("the control group %s is left", own)
		}
	})
	t.Run("mark", func(t *testing.T) { start(t, nil) })
}

// talk starts a shell as the first of a family, and returns when it has written
// a line. It ends with its input.
func talk(t *testing.T, f *family, script string, files ...*os.File) (line string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.ExtraFiles = files
	f.prepare(cmd)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f.first = cmd.Process.Pid
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait() // it may have been killed
	})
	line, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// A family's processor time includes children that it has waited for, and that
// of processes in a session of their own.
func TestFamilyUsage(t *testing.T) {
	const busy = `i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done`
	for name, script := range map[string]string{
		"child":   `sh -c '` + busy + `'; echo done; read x`,
		"session": `setsid sh -c '` + busy + `; echo done; exec sleep 100' & read x`,
	} {
		t.Run(name, func(t *testing.T) {
			families(t, func(t *testing.T, f *family) {
				talk(t, f, script)
				u, err := f.usage()
				if err != nil {
					t.Fatal(err)
				}
				if u.cpu < 3*tick.Seconds() {
					t.Errorf("the family has used %v s", u.cpu)
				}
			})
		})
	}
}

// Nobody of a family outlives it: not who left the process group, nor who was
// left by his parent.
func TestFamilyEnds(t *testing.T) {
	for name, script := range map[string]string{
		"session":       `setsid sh -c 'echo $$; exec sleep 100' & read x`,
		"orphan":        `setsid sh -c 'sh -c "echo \$\$; exec sleep 100" & exit' & read x`,
		"deaf":          `trap "" TERM HUP; setsid sh -c 'trap "" TERM HUP; echo $$; sleep 100' & read x`,
		"without marks": `env -i setsid sh -c 'echo $$; exec sleep 100' & read x`,
	} {
		t.Run(name, func(t *testing.T) {
			families(t, func(t *testing.T, f *family) {
				pid, err := strconv.Atoi(talk(t, f, script))
				if err != nil {
					t.Fatal(err)
				}
				pids, err := f.pids()
				if err != nil || !slices.Contains(pids, pid) || !slices.Contains(pids, f.first) {
					t.Errorf("the family is %v, %v, without %d or %d", pids, err, f.first, pid)
				}
				if err := f.end(); err != nil {
					t.Error(err)
				}
				stat, err := readStat(pid)
				if err == nil && stat.fields[fieldState] != "Z" {
					t.Errorf("process %d is still there: %v", pid, stat.fields[fieldState])
				}
			})
		})
	}
}

// The next run ends what a killed one has left in a control group.
func TestAbandonedControlGroupsAreReaped(t *testing.T) {
	groups, err := findCgroups()
	if err != nil {
		t.Skip(err)
	}
	f, err := newFamily(groups)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(talk(t, f, `setsid sh -c 'echo $$; exec sleep 100' & read x`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := findCgroups(); err != nil {
		t.Fatal(err)
	}
	if pids, _ := f.pids(); !slices.Contains(pids, pid) {
		t.Errorf("a group in use was reaped: %v are left", pids)
	}
	f.cgroup.lock.Close() // as by SIGKILL
	if _, err := findCgroups(); err != nil {
		t.Fatal(err)
	}
	if pids, _ := f.pids(); len(pids) > 0 || exists(f.cgroup.path) {
		t.Errorf("%v are left in %s", pids, f.cgroup.path)
	}
}

func TestHoldingsAreCounted(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	var seen [2]holdings
	for i, files := range [][]*os.File{nil, {r, w}} {
		f, err := newFamily(nil)
		if err != nil {
			t.Fatal(err)
		}
		talk(t, f, `echo ready; read x`, files...)
		if seen[i], err = takeHoldings(f); err != nil {
			t.Fatal(err)
		}
		if err := f.end(); err != nil {
			t.Error(err)
		}
	}
	without, with := seen[0], seen[1]
	if with.pipes-without.pipes != 1 || with.descriptors-without.descriptors != 2 {
		t.Errorf("one pipe more: %+v, then %+v", without, with)
	}
	if with.memory <= 0 || with.kernel <= 0 || with.processes != 1 || with.largestPipe < 4096 {
		t.Errorf("implausible: %+v", with)
	}
}

func TestSleepUntilIsNotEarly(t *testing.T) {
	for range 20 {
		due := time.Now().Add(300 * time.Microsecond)
		sleepUntil(due)
		if now := time.Now(); now.Before(due) {
			t.Errorf("%v early", due.Sub(now))
		}
	}
}
