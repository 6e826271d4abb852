package main

import (
	"os/signal"
	"syscall"
)

// outliveReaders has writes to a closed standard output or error fail, until
// undo is called. Without it Go ends the process with SIGPIPE, and a reader of
// the log that goes away would take every connection along.
func outliveReaders() (undo func()) {
	signal.Ignore(syscall.SIGPIPE)
	return func() { signal.Reset(syscall.SIGPIPE) }
}
