//go:build !linux

package netbench

func (m *Machine) detail() {}
