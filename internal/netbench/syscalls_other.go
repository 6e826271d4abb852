//go:build !linux

package netbench

import "errors"

type syscallCounter struct{}

func syscallTracepoint() (uint64, error) { return 0, errors.ErrUnsupported }

func countSyscalls(uint64, int) (*syscallCounter, error) { return nil, errors.ErrUnsupported }

func (*syscallCounter) count() (uint64, error) { return 0, errors.ErrUnsupported }

func (*syscallCounter) close() {}
