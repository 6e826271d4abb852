//go:build !unix

package netbench

import (
	"errors"
	"fmt"
	"os"
)

func takeOver(*os.File, os.FileInfo) error { return nil }

// openFIFO: no path names a FIFO on this system.
func openFIFO(_, name string) (*os.File, error) {
	return nil, fmt.Errorf("open %s: %w", name, errors.ErrUnsupported)
}

// openDescriptor: no path names a descriptor on this system.
func openDescriptor(_ int, name string) (*os.File, error) {
	return nil, fmt.Errorf("open %s: %w", name, errors.ErrUnsupported)
}
