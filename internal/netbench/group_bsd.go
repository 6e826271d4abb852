//go:build unix && !linux

package netbench

import "syscall"

func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func groupExists(pgid int) bool { return syscall.Kill(-pgid, 0) == nil }
