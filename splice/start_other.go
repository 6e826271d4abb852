//go:build !linux

package splice

import (
	"errors"
	"fmt"
	"io"

	"github.com/spliced-io/spliced/internal/engine"
)

func start(a, b io.ReadWriteCloser, o *options) (carrier, error) {
	if o.past != nil {
		return nil, fmt.Errorf("continue: it needs Linux: %w", errors.ErrUnsupported)
	}
	if o.engine == EngineSplice || o.engine == EngineSockmap || o.engine == EngineWire {
		return nil, fmt.Errorf("%s: %w: it needs Linux", o.engine, ErrEngine)
	}
	return startPortable(a, b, o, whyPortable(a, b, engine.WhyNotLinux))
}
