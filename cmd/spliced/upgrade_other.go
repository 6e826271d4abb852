//go:build !linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/spliced-io/spliced/proxy"
)

func upgradeSignals() []os.Signal { return nil }

func inherit(context.Context, lookupEnv) (*proxy.Inheritance, error) { return nil, nil }

func (d *daemon) spawn() (*successor, *net.UnixConn, error) {
	return nil, nil, fmt.Errorf("an upgrade needs Linux: %w", errors.ErrUnsupported)
}
