package splice

import (
	"errors"
	"io"
)

func startPortable(a, b io.ReadWriteCloser, o *options, why Why) (carrier, error) {
	return nil, errors.ErrUnsupported
}
