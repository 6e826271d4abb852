package netbench

import "syscall"

// ownGroup puts a child into a process group of its own, so that ^C reaches
// only us, and has it terminated when we die first.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
