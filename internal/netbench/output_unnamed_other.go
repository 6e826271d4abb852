//go:build !linux

package netbench

import (
	"errors"
	"os"
)

func createUnnamed(string, os.FileMode) (*os.File, error) { return nil, errors.ErrUnsupported }

func nameUnnamed(*os.File, string) error { return errors.ErrUnsupported }
