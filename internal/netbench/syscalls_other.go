//go:build !linux

package netbench

import "errors"

type callCounter struct{}

func syscallTracepoint() (uint64, error) { return 0, errors.ErrUnsupported }

func countCalls(uint64, *family) (*callCounter, error) { return nil, errors.ErrUnsupported }

func (*callCounter) count() (syscalls, switches uint64, err error) {
	return 0, 0, errors.ErrUnsupported
}

func (*callCounter) close() {}
