// Package privilege gives up what a process does not need once it has started:
// another user's identity, capabilities, and the right to write files. It can't
// be taken back.
package privilege

import "errors"

// ErrThreads says that privileges could not be given up in every thread: the
// program was built with cgo, whose threads the Go runtime does not know.
var ErrThreads = errors.New("this binary was built with cgo: privileges can't be dropped in all of its threads (build with CGO_ENABLED=0)")
