//go:build !amd64

package sys

// CopyLong is the built-in copy.
func CopyLong(to, from []byte) int { return copy(to, from) }
