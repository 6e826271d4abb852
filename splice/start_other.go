//go:build !linux

package splice

import (
	"fmt"
	"io"

	"github.com/spliced-io/spliced/internal/engine"
)

func start(a, b io.ReadWriteCloser, o *options) (carrier, error) {
	if o.engine == EngineSplice {
		return nil, fmt.Errorf("splice: %w: it needs Linux", ErrEngine)
	}
	return startPortable(a, b, o, engine.WhyNotLinux)
}
