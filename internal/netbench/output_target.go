package netbench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// outputTarget is what a path of an output leads to.
type outputTarget struct {
	path string // without symbolic links, also if nothing is there yet
	fd   int    // the descriptor of this process that the path names, or -1
}

// namesDirectory tells whether nothing else than a directory can have this name.
func namesDirectory(path string) bool {
	path = strings.TrimSuffix(path, ".")
	return path != "" && os.IsPathSeparator(path[len(path)-1])
}

// followOutput follows symbolic links, but not those that stand for open
// descriptors: behind them is the name of a file, and who names a descriptor
// means what it is open for, such as the end of that file.
func followOutput(path string) (outputTarget, error) {
	const most = 40 // links, as many as Linux follows
	path = filepath.Clean(path)
	for range most {
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			return outputTarget{path, -1}, nil // who opens it says why
		}
		base := filepath.Base(path)
		path = filepath.Join(dir, base)
		if holdsDescriptors(dir) {
			if fd, err := strconv.Atoi(base); err == nil && fd >= 0 {
				return outputTarget{path, fd}, nil
			}
		}
		next, err := os.Readlink(path)
		if err != nil || strings.HasPrefix(dir, "/proc/") {
			return outputTarget{path, -1}, nil
		}
		if !filepath.IsAbs(next) {
			next = filepath.Join(dir, next)
		}
		path = next
	}
	return outputTarget{}, fmt.Errorf("open %s: too many symbolic links", path)
}

// holdsDescriptors tells whether the names in dir are this process's
// descriptors. In another PID namespace /proc/self has another number than the
// process knows.
func holdsDescriptors(dir string) bool {
	if dir == "/dev/fd" {
		return true
	}
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return false
	}
	rest, ok := strings.CutPrefix(dir, "/proc/"+self+"/")
	return ok && (rest == "fd" || strings.HasPrefix(rest, "task/") && strings.HasSuffix(rest, "/fd"))
}

// SameOutput tells whether two paths lead to the same file, or would if it were
// made.
func SameOutput(a, b string) bool {
	if first, err := os.Stat(a); err == nil {
		second, err := os.Stat(b)
		return err == nil && os.SameFile(first, second)
	}
	first, err := followOutput(absolute(a))
	if err != nil {
		return false
	}
	second, err := followOutput(absolute(b))
	return err == nil && first == second
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
