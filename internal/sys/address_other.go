//go:build !linux

package sys

// An Address is where to connect to; only Linux has a use for it.
type Address struct{}
