//go:build !linux

package sockmaps

import "errors"

var errLinux = errors.New("sockmaps are a thing of Linux")

// List is described in the version for Linux.
func List() (Listing, error) { return Listing{}, errLinux }

// SocketsOf is described in the version for Linux.
func SocketsOf(int) ([]Socket, error) { return nil, errLinux }
