package netbench

import (
	"os"
	"runtime"
)

// describeMachine fills in what this system tells.
func describeMachine() Machine {
	m := Machine{
		OS:   runtime.GOOS,
		Arch: runtime.GOARCH,
		CPUs: runtime.NumCPU(),
		Go:   runtime.Version(),
	}
	m.Hostname, _ = os.Hostname() // empty is as good a name
	m.detail()
	return m
}
