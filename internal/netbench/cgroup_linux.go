package netbench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cgroups is where this user may make control groups of version 2, without any
// controller: they keep account and hold together, and change nothing.
type cgroups struct{ parent string }

// findCgroups fails where processes can't be started in a control group of
// their own, and says why.
func findCgroups() (*cgroups, error) {
	parent, err := ownCgroup()
	if err != nil {
		return nil, err
	}
	if controllers, _ := os.ReadFile(filepath.Join(parent, "cgroup.subtree_control")); len(bytes.TrimSpace(controllers)) > 0 {
		return nil, fmt.Errorf("control groups in %s have controllers, which would change what is measured: %s", parent, bytes.TrimSpace(controllers))
	}
	reap(parent, scratchPrefix, func(path string) error { return (&cgroup{path: path}).end() })
	groups := &cgroups{parent}
	g, err := groups.make()
	if err != nil {
		return nil, err
	}
	// Whether a process can be born into it (clone3, Linux 5.7) is only known
	// afterwards.
	cmd := exec.Command("sh", "-c", ":")
	cmd.SysProcAttr = g.attributes(&syscall.SysProcAttr{})
	err = cmd.Run()
	if err == nil {
		_, err = g.cpu()
	}
	if err = errors.Join(err, g.end()); err != nil {
		return nil, fmt.Errorf("try a control group: %w", err)
	}
	return groups, nil
}

// ownCgroup is the directory of the group that this process is in.
func ownCgroup() (string, error) {
	memberships, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	own := ""
	for line := range strings.Lines(string(memberships)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			own = path
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	var found []string
	for line := range strings.Lines(string(mounts)) {
		// ID parent device root mount-point options... - type source options
		place, kind, _ := strings.Cut(line, " - ")
		fields := strings.Fields(place)
		if len(fields) < 5 || !strings.HasPrefix(kind, "cgroup2 ") || own == "" {
			continue
		}
		below, err := filepath.Rel(fields[3], own)
		if err == nil && !strings.HasPrefix(below, "..") {
			found = append(found, filepath.Join(fields[4], below))
		}
	}
	// A later mount may hide an earlier one.
	for _, dir := range slices.Backward(found) {
		if exists(filepath.Join(dir, "cgroup.procs")) {
			return dir, nil
		}
	}
	return "", errors.New("control groups of version 2 are not mounted")
}

// cgroup is a control group that holds a peer's processes, wherever else they
// belong.
type cgroup struct {
	path string
	lock *os.File
}

func (c *cgroups) make() (*cgroup, error) {
	path, lock, err := makeClaimed(func() (string, error) { return os.MkdirTemp(c.parent, scratchPrefix) })
	if err != nil {
		return nil, fmt.Errorf("make a control group: %w", err)
	}
	return &cgroup{path, lock}, nil
}

// attributes has a process be born into the group.
func (g *cgroup) attributes(attr *syscall.SysProcAttr) *syscall.SysProcAttr {
	attr.UseCgroupFD, attr.CgroupFD = true, int(g.lock.Fd())
	return attr
}

// pids are the processes in the group, without zombies.
func (g *cgroup) pids() (pids []int) {
	content, _ := os.ReadFile(filepath.Join(g.path, "cgroup.procs")) // gone: nobody is in it
	for _, field := range strings.Fields(string(content)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// cpu is what all processes that are, or were, in the group have used, in
// seconds.
func (g *cgroup) cpu() (float64, error) {
	content, err := os.ReadFile(filepath.Join(g.path, "cpu.stat"))
	if err != nil {
		return 0, fmt.Errorf("read a control group: %w", err)
	}
	for line := range strings.Lines(string(content)) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == "usage_usec" {
			us, err := strconv.ParseUint(fields[1], 10, 64)
			return float64(us) / 1e6, err
		}
	}
	return 0, errors.New("read a control group: cpu.stat has no usage_usec")
}

// end kills what is in the group and removes it.
func (g *cgroup) end() error {
	const pause = 2 * time.Millisecond
	if g.lock != nil {
		defer g.lock.Close()
	}
	var err error
	for deadline := time.Now().Add(killGrace); ; time.Sleep(pause) {
		// Since Linux 5.14; before, those that are known are killed.
		if os.WriteFile(filepath.Join(g.path, "cgroup.kill"), []byte("1"), 0) != nil {
			for _, pid := range g.pids() {
				_ = syscall.Kill(pid, syscall.SIGKILL) // gone already is as good
			}
		}
		err = os.Remove(g.path)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("remove a control group: %w", err)
		}
	}
}
