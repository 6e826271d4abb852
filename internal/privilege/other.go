//go:build !linux

package privilege

import "errors"

// ErrNoLandlock says that this kernel has no landlock(7).
var ErrNoLandlock = errors.New("landlock needs Linux")

// A User is whom to become.
type User struct{ UID, GID int }

// Drop needs Linux.
func Drop([]string, *User) ([]string, error) { return nil, errors.ErrUnsupported }

// What is done with a file, for [Denied].
const (
	Read  = 4
	Enter = 3
)

// Denied needs Linux.
func Denied(uint32, ...string) ([]string, error) { return nil, nil }

// WriteOnly needs Linux.
func WriteOnly(...string) (int, error) { return 0, ErrNoLandlock }
