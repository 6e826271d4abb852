package privilege

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/spliced-io/spliced/internal/sys"
)

// A User is whom to become.
type User struct{ UID, GID int }

// Drop keeps the named capabilities, as far as the process has them, and gives up
// all others for itself and for what it executes; and no program that it executes
// is given any (no_new_privs). With a user it becomes that one, with its group
// alone. kept are those that the process has afterwards.
func Drop(keep []string, user *User) (kept []string, err error) {
	bits, err := set(keep)
	if err != nil {
		return nil, err
	}
	have, err := sys.GetCapabilities()
	if err != nil {
		return nil, fmt.Errorf("capget: %w", err)
	}
	bits &= have.Permitted
	if err := sys.SetNoNewPrivileges(); err != nil {
		return nil, failed("prctl(PR_SET_NO_NEW_PRIVS)", err)
	}
	// While it still may: without CAP_SETPCAP the bounding set stays, of which
	// no_new_privs lets nothing be had. What is kept stays in it, or a program that is
	// executed could not be given it: see ForChild.
	for i := range names {
		if bits>>i&1 != 0 {
			continue
		}
		err := sys.DropBounding(i)
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EINVAL) {
			break
		}
		if err != nil {
			return nil, failed("prctl(PR_CAPBSET_DROP)", err)
		}
	}
	if user != nil {
		if err := become(*user); err != nil {
			return nil, err
		}
	}
	if err := sys.ClearAmbient(); err != nil {
		return nil, failed("prctl(PR_CAP_AMBIENT)", err)
	}
	if err := sys.SetCapabilities(sys.Capabilities{Effective: bits, Permitted: bits}); err != nil {
		return nil, failed("capset", err)
	}
	for i, name := range names {
		if bits>>i&1 != 0 {
			kept = append(kept, name)
		}
	}
	return kept, nil
}

// ForChild are the numbers of the capabilities that a program needs to be given to
// have what this process has (SysProcAttr.AmbientCaps): none where the user is
// root, whose programs have them anyway.
func ForChild() ([]uintptr, error) {
	if syscall.Geteuid() == 0 {
		return nil, nil
	}
	have, err := sys.GetCapabilities()
	if err != nil {
		return nil, fmt.Errorf("capget: %w", err)
	}
	var list []uintptr
	for i := range names {
		if have.Permitted>>i&1 != 0 {
			list = append(list, uintptr(i))
		}
	}
	return list, nil
}

// become changes the user and keeps the permitted capabilities, which Drop
// reduces next.
func become(u User) error {
	if err := sys.KeepCapabilities(true); err != nil {
		return failed("prctl(PR_SET_KEEPCAPS)", err)
	}
	if err := sys.SetUser(u.UID, u.GID); err != nil {
		return failed(fmt.Sprintf("become user %d, group %d", u.UID, u.GID), err)
	}
	if err := sys.KeepCapabilities(false); err != nil {
		return failed("prctl(PR_SET_KEEPCAPS)", err)
	}
	return nil
}

func failed(call string, err error) error {
	if errors.Is(err, syscall.ENOTSUP) {
		return ErrThreads
	}
	return fmt.Errorf("%s: %w", call, err)
}
