package testnet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// owner names a process so that a later one with the same number is not
// mistaken for it.
type owner struct {
	pid   int
	start string // field 22 of /proc/PID/stat: ticks since boot
	// space is the inode of the PID namespace that pid is of. Whether a process
	// of another one is alive can't be told here.
	space string
}

func (o owner) prefix() string { return fmt.Sprintf("spliced-%d-%s-%s-", o.pid, o.start, o.space) }

// alive is false for a zombie: it has ended, whoever has not taken notice.
func (o owner) alive() bool {
	state, start, err := stat(o.pid)
	return err == nil && start == o.start && state != "Z" && state != "X"
}

func self() (owner, error) {
	_, start, err := stat(os.Getpid())
	if err != nil {
		return owner{}, err
	}
	space, err := os.Stat("/proc/self/ns/pid")
	if err != nil {
		return owner{}, err
	}
	return owner{os.Getpid(), start, fmt.Sprint(space.Sys().(*syscall.Stat_t).Ino)}, nil
}

// Reap removes the namespaces of processes that are gone, with the processes
// that run in them, and returns their names. Other namespaces it leaves alone,
// also those of processes of another PID namespace: such a one may be alive.
func Reap() (removed []string, err error) {
	me, err := self()
	if err != nil {
		return nil, fmt.Errorf("look for left namespaces: %w", err)
	}
	stale, err := namespaces(func(o owner) bool { return o.space == me.space && !o.alive() })
	if err != nil {
		return nil, fmt.Errorf("look for left namespaces: %w", err)
	}
	for _, name := range stale {
		path := filepath.Join(mountDir, name)
		killInside(path)
		// Somebody else may be reaping at the same time.
		if err := remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return removed, err
		}
		removed = append(removed, name)
	}
	return removed, nil
}

// namespaces returns the names of the package's namespaces whose owner
// satisfies match.
func namespaces(match func(owner) bool) (names []string, err error) {
	entries, err := os.ReadDir(mountDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	pattern := regexp.MustCompile(`^spliced-([0-9]+)-([0-9]+)-([0-9]+)-[a-zA-Z0-9]+$`)
	for _, entry := range entries {
		m := pattern.FindStringSubmatch(entry.Name())
		if m == nil {
			continue
		}
		pid, convErr := strconv.Atoi(m[1])
		if convErr == nil && match(owner{pid, m[2], m[3]}) {
			names = append(names, entry.Name())
		}
	}
	return names, err
}

// killInside kills the processes whose namespace is mounted at path. One of
// this process's own threads can't be among them: its owner is alive.
func killInside(path string) {
	var want syscall.Stat_t
	if syscall.Stat(path, &want) != nil {
		return
	}
	found, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, ns := range found {
		var got syscall.Stat_t
		if syscall.Stat(ns, &got) != nil || got.Ino != want.Ino || got.Dev != want.Dev {
			continue
		}
		if pid, err := strconv.Atoi(strings.Split(ns, "/")[2]); err == nil && pid != os.Getpid() {
			// Gone in the meantime is as good.
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// stat returns a process's state, a letter, and its start time.
func stat(pid int) (state, start string, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", "", err
	}
	// The command's name may contain anything; the last parenthesis ends it.
	_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')'):]), " ")
	fields := strings.Fields(rest)
	const stateField, startField = 0, 22 - 3 // the fields are counted from 1, and rest begins with the third
	if len(fields) <= startField {
		return "", "", fmt.Errorf("read /proc/%d/stat: %d fields", pid, len(fields))
	}
	return fields[stateField], fields[startField], nil
}
