package privilege

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/spliced-io/spliced/internal/sys"
)

// ErrNoLandlock says that this kernel has no landlock(7), or that it is off.
var ErrNoLandlock = errors.New("this kernel has no landlock")

// The accesses of linux/landlock.h that change files. Reading stays free: a
// configuration may name any file, also the one after the next reload.
const (
	writeFile  = 1 << 1
	removeDir  = 1 << 4
	removeFile = 1 << 5
	makeChar   = 1 << 6
	makeDir    = 1 << 7
	makeReg    = 1 << 8
	makeSock   = 1 << 9
	makeFifo   = 1 << 10
	makeBlock  = 1 << 11
	makeSym    = 1 << 12
	refer      = 1 << 13 // version 2
	truncate   = 1 << 14 // version 3

	changing = writeFile | removeDir | removeFile | makeChar | makeDir | makeReg | makeSock | makeFifo | makeBlock | makeSym
)

// WriteOnly lets the process, and what it executes, change nothing in the file
// system but these files and what is below these directories, of which those that are not there, or
// out of its reach anyway, are left out. Descriptors that are open stay as they are. It needs what [Drop]
// does before. The version of landlock is returned.
func WriteOnly(paths ...string) (version int, err error) {
	version, err = sys.LandlockVersion()
	if errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.EOPNOTSUPP) {
		return 0, ErrNoLandlock
	}
	if err != nil {
		return 0, fmt.Errorf("landlock_create_ruleset: %w", err)
	}
	access := uint64(changing)
	if version >= 2 {
		access |= refer
	}
	if version >= 3 {
		access |= truncate
	}
	rules, err := sys.LandlockRuleset(access)
	if err != nil {
		return 0, fmt.Errorf("landlock_create_ruleset: %w", err)
	}
	defer func() { _ = sys.Close(rules) }()
	for _, path := range paths {
		err := allow(rules, path, access)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return 0, err
		}
	}
	if err := sys.LandlockRestrict(rules); err != nil {
		return 0, failed("landlock_restrict_self", err)
	}
	return version, nil
}

func allow(rules int, path string, access uint64) error {
	fd, isDir, err := sys.OpenPath(path)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = sys.Close(fd) }()
	if !isDir {
		access &= writeFile | truncate
	}
	if err := sys.LandlockAllow(rules, fd, access); err != nil {
		return fmt.Errorf("landlock_add_rule %s: %w", path, err)
	}
	return nil
}
