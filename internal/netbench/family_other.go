//go:build !linux

package netbench

import (
	"errors"
	"os/exec"
	"time"
)

// cgroups are Linux's.
type cgroups struct{}

func findCgroups() (*cgroups, error) { return nil, errors.ErrUnsupported }

// family is the process group of a peer's first process.
type family struct{ first int }

func newFamily(*cgroups) (*family, error) { return &family{}, nil }

func (f *family) prepare(*exec.Cmd) {}

// end kills the group until there is nobody left.
func (f *family) end() error {
	if f == nil || f.first == 0 {
		return nil
	}
	const pause = 2 * time.Millisecond
	for deadline := time.Now().Add(killGrace); groupExists(f.first) && time.Now().Before(deadline); {
		killGroup(f.first)
		time.Sleep(pause)
	}
	return nil
}
