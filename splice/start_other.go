//go:build !linux

package splice

import (
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/spliced-io/spliced/internal/engine"
)

func start(a, b io.ReadWriteCloser, o *options) (carrier, error) {
	if o.engine == EngineSplice {
		return nil, fmt.Errorf("splice: %w: it needs Linux", ErrEngine)
	}
	return startPortable(a, b, o, engine.WhyNotLinux)
}

func (s *Session) take() (a, b net.Conn, err error) { return nil, nil, errors.ErrUnsupported }
