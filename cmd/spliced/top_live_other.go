//go:build !linux

package main

import (
	"context"

	"github.com/spliced-io/spliced/cmd/spliced/internal/adminapi"
)

// live needs a terminal as Linux has it.
func (c *topCmd) live(context.Context, *adminapi.Client, streams) error { return errNoTerminal }
