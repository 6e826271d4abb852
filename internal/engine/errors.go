package engine

import (
	"errors"
	"fmt"
	"syscall"
)

// The outcomes that have no errno of their own.
var (
	ErrStopped   = errors.New("stopped")
	ErrIdle      = &timeoutError{"idle timeout"}
	ErrHalfClose = &timeoutError{"half-close timeout"}
	ErrLifetime  = &timeoutError{"lifetime over"}

	// ErrClientLeft ends a dial: there is nobody to dial for any more.
	ErrClientLeft = errors.New("the client has left")
	// ErrRaced is why a target was given up that was dialled beside another one.
	ErrRaced = errors.New("another address of the server has answered first")
)

// A timeoutError is ETIMEDOUT with its name, as SO_SPLICE's idle timer is.
type timeoutError struct{ what string }

func (e *timeoutError) Error() string { return e.what }
func (e *timeoutError) Timeout() bool { return true }
func (e *timeoutError) Unwrap() error { return syscall.ETIMEDOUT }

// An overshootError is a defect of this program: an engine has delivered more
// than MaxBytes.
type overshootError struct{ delivered, limit int64 }

func (e *overshootError) Error() string {
	return fmt.Sprintf("%d bytes were delivered, %d more than MaxBytes: a defect of the engine", e.delivered, e.delivered-e.limit)
}

func (e *overshootError) Unwrap() error { return syscall.EOVERFLOW }
