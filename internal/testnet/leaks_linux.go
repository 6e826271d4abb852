package testnet

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// osInventory lists descriptors, children and namespaces of this process.
func osInventory() map[string]string {
	items := map[string]string{}
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		// The descriptor of the directory itself is gone by now.
		if target, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil {
			items["fd "+fd.Name()+" "+target] = describe("descriptor", fd.Name(), target)
		}
	}
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, list := range lists {
		content, _ := os.ReadFile(list)
		for _, pid := range strings.Fields(string(content)) {
			if orphan(pid) {
				continue
			}
			command, _ := os.ReadFile("/proc/" + pid + "/cmdline")
			items["child "+pid] = describe("process", pid, strings.ReplaceAll(string(command), "\x00", " "))
		}
	}
	me, err := self()
	if err != nil {
		return items
	}
	own, _ := namespaces(func(o owner) bool { return o == me })
	for _, name := range own {
		items["netns "+name] = describe("namespace", name, mountDir)
	}
	return items
}

// orphan says whether a child has ended that may be another process's, which has ended before: init
// is given those, and a test is that where it has a PID namespace for itself. Upgrades leave some.
func orphan(pid string) bool {
	n, err := strconv.Atoi(pid)
	if err != nil || os.Getpid() != 1 {
		return false
	}
	state, _, err := stat(n)
	return err == nil && state == "Z"
}
