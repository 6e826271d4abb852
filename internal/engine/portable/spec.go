package portable

import (
	"io"

	"github.com/spliced-io/spliced/internal/engine"
)

// A Spec is what a session is started with.
type Spec struct {
	A, B         io.ReadWriteCloser
	Limits       engine.Limits
	FromA, FromB []byte     // bytes already read; not changed until the end
	Why          engine.Why // why the event loops don't carry these two

	// OnEnd, if set, is called once, when the session has ended and before
	// Done is closed: it must not wait for the session.
	OnEnd func(engine.Result)
}
