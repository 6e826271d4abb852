//go:build !linux

package engine

// Set needs Linux.
func (o *SocketOptions) Set(int) {}
