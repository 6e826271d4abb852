package netbench

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// family is the processes of a peer: the first one, and all that come of it.
// With a control group nobody leaves it. Without one it is known by its process
// group, by a mark in the environment, and by its parents: who leaves the group,
// clears the environment and loses the parent is lost.
type family struct {
	cgroup *cgroup // or nil
	mark   string
	first  int // 0 before the start
}

const markVariable = "SPLICED_BENCH_PEER"

// newFamily is called before the first process is started; groups may be nil.
func newFamily(groups *cgroups) (*family, error) {
	f := &family{mark: markVariable + "=" + rand.Text()}
	var err error
	if groups != nil {
		f.cgroup, err = groups.make()
	}
	return f, err
}

// prepare has the process be the first of the family.
func (f *family) prepare(cmd *exec.Cmd) {
	cmd.Env = append(cmd.Environ(), f.mark)
	if f.cgroup != nil {
		f.cgroup.attributes(cmd.SysProcAttr)
	}
}

// pids are those that are alive.
func (f *family) pids() ([]int, error) {
	switch {
	case f == nil || f.first == 0:
		return nil, nil
	case f.cgroup != nil:
		return f.cgroup.pids(), nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	children := map[int][]int{}
	member := map[int]bool{}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		stat, err := readStat(pid)
		if err != nil || stat.fields[fieldState] == "Z" {
			continue // it has just ended
		}
		parent, _ := strconv.Atoi(stat.fields[fieldPpid])
		group, _ := strconv.Atoi(stat.fields[fieldPgrp])
		children[parent] = append(children[parent], pid)
		const kernelThreads = 2
		if group == f.first || parent != kernelThreads && f.marked(pid) {
			pids = append(pids, pid)
			member[pid] = true
		}
	}
	for i := 0; i < len(pids); i++ {
		for _, child := range children[pids[i]] {
			if !member[child] {
				pids = append(pids, child)
				member[child] = true
			}
		}
	}
	return pids, nil
}

func (f *family) marked(pid int) bool {
	environment, ok := environmentOf(pid)
	if !ok {
		return false
	}
	for variable := range bytes.SplitSeq(environment, []byte{0}) {
		if string(variable) == f.mark {
			return true
		}
	}
	return false
}

// environmentOf is false for who has ended, and for somebody else's process. In
// the middle of exec(2) a process has neither environment nor command line: it
// is waited for, however long a busy machine lets it stand there.
func environmentOf(pid int) (environment []byte, ok bool) {
	const longest, pause = time.Second, time.Millisecond
	read := func(name string) ([]byte, bool) {
		content, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		return content, err == nil
	}
	for deadline := time.Now().Add(longest); ; time.Sleep(pause) {
		environment, ok := read("environ")
		if !ok || len(environment) > 0 {
			return environment, ok
		}
		if command, ok := read("cmdline"); !ok || len(command) > 0 || startOf(pid) == "" || time.Now().After(deadline) {
			return nil, false
		}
	}
}

// usage is what the family has used.
func (f *family) usage() (u groupUsage, err error) {
	if f == nil || f.first == 0 {
		return groupUsage{at: time.Now()}, nil
	}
	pids, err := f.pids()
	if err != nil {
		return u, err
	}
	u = usageOf(pids...)
	if f.cgroup != nil {
		// What it tells of those that have ended is missing elsewhere.
		u.cpu, err = f.cgroup.cpu()
	}
	return u, err
}

// end kills whom it finds, until there is nobody left.
func (f *family) end() error {
	if f == nil {
		return nil
	}
	if f.cgroup != nil {
		return f.cgroup.end()
	}
	const pause = 2 * time.Millisecond
	// Who is about to end has no environment any more, and is not found by it.
	killed := map[int]string{} // to when it was started
	for deadline := time.Now().Add(killGrace); ; time.Sleep(pause) {
		pids, err := f.pids()
		if err != nil {
			return err
		}
		for _, pid := range pids {
			killed[pid] = startOf(pid)
			_ = syscall.Kill(pid, syscall.SIGKILL) // gone already is as good
		}
		for pid, started := range killed {
			if startOf(pid) != started || started == "" {
				delete(killed, pid)
			}
		}
		if len(pids) == 0 && len(killed) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %s do not end", strings.Trim(fmt.Sprint(slices.Sorted(maps.Keys(killed))), "[]"))
		}
	}
}

// startOf tells when a process was started, so that its number is not taken
// for another's; "" if it has ended.
func startOf(pid int) string {
	stat, err := readStat(pid)
	if err != nil || stat.fields[fieldState] == "Z" {
		return ""
	}
	return stat.fields[fieldStart]
}
