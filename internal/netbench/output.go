package netbench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// An Output is a file that is opened before a run and takes its name after it:
// there is no half-written one, and no run whose result can't be written.
type Output struct {
	given  string // as the caller says it
	path   string
	file   *os.File
	naming naming
}

// naming is how an output comes by its name.
type naming int

const (
	inPlace  naming = iota // it has it
	unnamed                // it has none until Commit
	provided               // it has another one until Commit
)

// OpenOutput prepares to write path. A regular file will be replaced as a
// whole, by one of the same owner and mode; a symbolic link stays one, also if
// it leads to nothing yet. A descriptor (/dev/stdout, /dev/fd/N,
// /proc/self/fd/N), a pipe or a device is written to as it is; a FIFO must have
// its reader already. What killed runs have left beside path is removed.
func OpenOutput(path string) (*Output, error) { return openOutput(path, createUnnamed) }

func openOutput(path string, unnamedIn createFunc) (*Output, error) {
	if namesDirectory(path) {
		return nil, fmt.Errorf("open %s: that is a name of a directory", path)
	}
	target, err := followOutput(path)
	if err != nil {
		return nil, err
	}
	o := &Output{given: path, path: target.path}
	if target.fd >= 0 {
		o.file, err = openDescriptor(target.fd, path)
		return o, err
	}
	info, err := os.Stat(o.path)
	switch {
	case err == nil && info.IsDir():
		return nil, fmt.Errorf("open %s: it is a directory", path)
	case err == nil && info.Mode()&os.ModeNamedPipe != 0:
		o.file, err = openFIFO(o.path, path)
		return o, err
	case err == nil && (!info.Mode().IsRegular() || strings.HasPrefix(o.path, "/proc/")):
		o.file, err = os.OpenFile(o.path, os.O_WRONLY|os.O_APPEND, 0)
		return o, err
	case err == nil:
		// Who may write to the directory might not be allowed to write this.
		if err := writable(o.path); err != nil {
			return nil, err
		}
	case errors.Is(err, os.ErrNotExist):
		info = nil
	default:
		return nil, fmt.Errorf("open %s: %w", path, withoutPath(err))
	}
	reap(filepath.Dir(o.path), filepath.Base(o.unfinished()), os.Remove)
	if err := o.create(unnamedIn); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, withoutPath(err))
	}
	if info != nil {
		if err := takeOver(o.file, info); err != nil {
			o.Discard()
			return nil, fmt.Errorf("open %s: %w", path, err)
		}
	}
	return o, nil
}

func writable(path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return file.Close()
}

// unfinished begins the other names. They are not too long where the output's
// own is not.
func (o *Output) unfinished() string {
	const most = 128 // bytes
	base := filepath.Base(o.path)
	if len(base) > most {
		base = strings.ToValidUTF8(base[:most], "")
	}
	return filepath.Join(filepath.Dir(o.path), "."+base+".unfinished-")
}

// createFunc makes a file without a name in a directory.
type createFunc func(dir string, mode os.FileMode) (*os.File, error)

// create makes the file, without a name where that is possible.
func (o *Output) create(unnamedIn createFunc) (err error) {
	const mode = 0o666 // of which the umask takes away
	if o.file, err = unnamedIn(filepath.Dir(o.path), mode); err == nil {
		o.naming = unnamed
		_ = claim(o.file) // it has no name that others could see yet
		return nil
	}
	o.naming = provided
	o.file, err = createClaimed(o.unfinished(), mode)
	return err
}

// createClaimed makes a file whose name begins with prefix, and claims it.
func createClaimed(prefix string, mode os.FileMode) (file *os.File, err error) {
	const tries = 10
	for range tries {
		file, err = os.OpenFile(prefix+fmt.Sprint(rand.Uint32()), os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err = claim(file); err != nil && claimed(err) {
			file.Close()
			continue // another run took it for a leftover
		}
		if _, err = os.Stat(file.Name()); err == nil {
			return file, nil
		}
		file.Close()
	}
	return nil, err
}

// Commit has write fill the file and gives it its name. After an error there is
// no file, or still the old one, and nothing is added to what is written in
// place unless that itself fails.
func (o *Output) Commit(write func(io.Writer) error) error {
	err := o.commit(write)
	if err == nil {
		return nil
	}
	o.Discard()
	return fmt.Errorf("write %s: %w", o.given, withoutPath(err))
}

// withoutPath leaves the temporary name out, which says nothing to the caller.
func withoutPath(err error) error {
	var inner *os.PathError
	if errors.As(err, &inner) {
		return inner.Err
	}
	return err
}

func (o *Output) commit(write func(io.Writer) error) error {
	var content bytes.Buffer
	if err := write(&content); err != nil {
		return err
	}
	if _, err := content.WriteTo(o.file); err != nil {
		return err
	}
	if o.naming == inPlace {
		return o.file.Close()
	}
	if err := o.file.Sync(); err != nil {
		return err
	}
	if o.naming == unnamed {
		if err := o.name(); err != nil {
			return err
		}
		o.naming = inPlace
		return o.file.Close()
	}
	// Some systems rename no open file.
	if err := o.file.Close(); err != nil {
		return err
	}
	if err := os.Rename(o.file.Name(), o.path); err != nil {
		return err
	}
	o.naming = inPlace
	return nil
}

// name puts an unnamed file in the place of the one that has the name.
func (o *Output) name() error {
	// A link replaces nothing, a rename does.
	const tries = 10
	for range tries {
		name := o.unfinished() + fmt.Sprint(rand.Uint32())
		err := nameUnnamed(o.file, name)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.Rename(name, o.path); err != nil {
			return errors.Join(err, os.Remove(name))
		}
		return nil
	}
	return os.ErrExist
}

// Discard gives the file up. After Commit it does nothing.
func (o *Output) Discard() {
	_ = o.file.Close() // what is in it is not wanted
	if o.naming == provided {
		_ = os.Remove(o.file.Name())
	}
	o.naming = inPlace
}

// WriteJSON writes f as --json does.
func WriteJSON(w io.Writer, f *File) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(f)
}
