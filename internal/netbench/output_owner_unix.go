//go:build unix

package netbench

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// takeOver gives file the owner and the mode of the one that it will replace.
// Who may not give it to that group leaves the group no more than others have.
func takeOver(file *os.File, replaced os.FileInfo) error {
	mode := replaced.Mode().Perm()
	if stat, ok := replaced.Sys().(*syscall.Stat_t); ok {
		uid, gid := int(stat.Uid), int(stat.Gid)
		if file.Chown(uid, gid) != nil && file.Chown(-1, gid) != nil {
			mode &^= 0o070 &^ (mode & 0o007 << 3)
		}
	}
	return file.Chmod(mode)
}

// openFIFO does not wait for a reader, as open(2) would with the signals taken.
func openFIFO(path, name string) (*os.File, error) {
	fd, err := syscall.Open(path, syscall.O_WRONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errors.Is(err, syscall.ENXIO) {
		return nil, fmt.Errorf("open %s: nobody reads it: %w", name, err)
	}
	if err == nil {
		if err = syscall.SetNonblock(fd, false); err != nil {
			syscall.Close(fd)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// openDescriptor returns a duplicate of a descriptor of this process.
func openDescriptor(fd int, name string) (*os.File, error) {
	syscall.ForkLock.RLock()
	dup, err := syscall.Dup(fd)
	if err == nil {
		syscall.CloseOnExec(dup)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	file := os.NewFile(uintptr(dup), name)
	// Writing nothing does nothing, and fails where writing is not allowed.
	if _, err := syscall.Write(dup, nil); errors.Is(err, syscall.EBADF) {
		file.Close()
		return nil, fmt.Errorf("open %s: it is open for reading only", name)
	}
	return file, nil
}
