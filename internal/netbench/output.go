package netbench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// An Output is a file that is opened before a run and takes its name after it:
// there is no half-written one, and no run whose result can't be written.
type Output struct {
	path string
	file *os.File
	temp bool // file has another name until Commit
}

// OpenOutput prepares to write path. A path that exists and is no regular file
// (a pipe, /dev/stdout) is written to directly; a symbolic link stays one. What
// killed runs have left beside path is removed.
func OpenOutput(path string) (*Output, error) {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return nil, fmt.Errorf("open %s: it is a directory", path)
	case err == nil && !info.Mode().IsRegular():
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return nil, err
		}
		return &Output{path: path, file: file}, nil
	}
	unfinished := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".unfinished-")
	reap(filepath.Dir(path), filepath.Base(unfinished), os.Remove)
	file, err := createClaimed(unfinished)
	if err != nil {
		var inner *os.PathError
		if errors.As(err, &inner) {
			err = inner.Err // the temporary name says nothing to the caller
		}
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	const mode = 0o644
	if err := file.Chmod(mode); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), file.Close(), os.Remove(file.Name()))
	}
	return &Output{path: path, file: file, temp: true}, nil
}

// createClaimed makes a file whose name begins with prefix, and claims it.
func createClaimed(prefix string) (file *os.File, err error) {
	const tries = 10
	for range tries {
		file, err = os.CreateTemp(filepath.Dir(prefix), filepath.Base(prefix)+"*")
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
// no file, or still the old one.
func (o *Output) Commit(write func(io.Writer) error) error {
	err := write(o.file)
	if err == nil && o.temp {
		err = o.file.Sync()
	}
	if err != nil {
		o.Discard()
		return fmt.Errorf("write %s: %w", o.path, err)
	}
	if err := o.file.Close(); err != nil {
		return fmt.Errorf("write %s: %w", o.path, err)
	}
	if !o.temp {
		return nil
	}
	if err := os.Rename(o.file.Name(), o.path); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", o.path, err), os.Remove(o.file.Name()))
	}
	o.temp = false
	return nil
}

// Discard gives the file up. After Commit it does nothing.
func (o *Output) Discard() {
	_ = o.file.Close() // what is in it is not wanted
	if o.temp {
		_ = os.Remove(o.file.Name())
		o.temp = false
	}
}

// WriteJSON writes f as --json does.
func WriteJSON(w io.Writer, f *File) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(f)
}
