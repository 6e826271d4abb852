package engine

import (
	"errors"
	"syscall"
)

// The outcomes that have no errno of their own.
var (
	ErrStopped   = errors.New("stopped")
	ErrIdle      = &timeoutError{"idle timeout"}
	ErrHalfClose = &timeoutError{"half-close timeout"}
	ErrLifetime  = &timeoutError{"lifetime over"}
)

// A timeoutError is ETIMEDOUT with its name, as SO_SPLICE's idle timer is.
type timeoutError struct{ what string }

func (e *timeoutError) Error() string { return e.what }
func (e *timeoutError) Timeout() bool { return true }
func (e *timeoutError) Unwrap() error { return syscall.ETIMEDOUT }
