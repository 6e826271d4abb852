package netbench

import (
	"os"

	"github.com/spliced-io/spliced/internal/sys"
)

// createUnnamed makes a file in dir that no killed run leaves behind.
func createUnnamed(dir string, mode os.FileMode) (*os.File, error) {
	fd, err := sys.OpenUnnamed(dir, uint32(mode.Perm()))
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// nameUnnamed fails if there is a file of that name.
func nameUnnamed(file *os.File, name string) error { return sys.LinkUnnamed(int(file.Fd()), name) }
