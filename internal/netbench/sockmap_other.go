//go:build !linux

package netbench

import (
	"context"
	"errors"
)

// RunSockmap is described in the version for Linux.
func RunSockmap(context.Context, SockmapOptions) (*File, error) {
	return nil, errors.New("sockmaps are a thing of Linux")
}
