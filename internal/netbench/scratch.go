package netbench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// scratch is the temporary directory of a run. The next run removes it if this
// one can't.
type scratch struct {
	path string
	lock *os.File
}

const scratchPrefix = "spliced-bench-"

func newScratch() (*scratch, error) {
	root := os.TempDir()
	reap(root, scratchPrefix, os.RemoveAll)
	path, lock, err := makeClaimed(func() (string, error) { return os.MkdirTemp(root, scratchPrefix) })
	if err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	return &scratch{path, lock}, nil
}

func (s *scratch) remove() error { return errors.Join(os.RemoveAll(s.path), s.lock.Close()) }

// makeClaimed has create make a directory, and claims it.
func makeClaimed(create func() (path string, err error)) (path string, lock *os.File, err error) {
	const tries = 10
	for range tries {
		if path, err = create(); err != nil {
			return "", nil, err
		}
		if lock, err = os.Open(path); err != nil {
			continue // another run took it for a leftover, and has removed it
		}
		if err = claim(lock); err != nil && claimed(err) {
			lock.Close()
			continue
		}
		// Without locks on this file system there is no reaping either.
		if _, err = os.Stat(path); err == nil {
			return path, lock, nil
		}
		lock.Close()
	}
	return "", nil, err
}

// reap removes what killed runs have left in dir under names with prefix.
func reap(dir, prefix string, remove func(path string) error) {
	entries, _ := os.ReadDir(dir) // who makes something there says why that fails
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), prefix) {
			continue
		}
		path := filepath.Join(dir, entry.Name())
		if lock := abandoned(path); lock != nil {
			_ = remove(path) // what can't be removed now will be met again
			lock.Close()
		}
	}
}
