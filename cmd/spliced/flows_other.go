//go:build !linux

package main

import (
	"errors"
	"fmt"
)

var errNoWire = fmt.Errorf("spliced flows needs Linux: %w", errors.ErrUnsupported)

func wireInstances(string) ([]string, error) { return nil, errNoWire }

func purgeWire(string, string) error { return errNoWire }

func wireFlows(string, string, func(*flowView) error) error { return errNoWire }
