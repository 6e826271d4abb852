//go:build unix

package netbench

import "syscall"

// The group may be gone already, which is what the caller wants.

func terminateGroup(pgid int) { _ = syscall.Kill(-pgid, syscall.SIGTERM) }

func killGroup(pgid int) { _ = syscall.Kill(-pgid, syscall.SIGKILL) }
