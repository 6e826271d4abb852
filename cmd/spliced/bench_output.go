package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spliced-io/spliced/internal/netbench"
)

// outputTo is a file to write in a format; without a path there is none.
type outputTo struct {
	flag, path string
	format     func(io.Writer, *netbench.File) error
}

type openOutput struct {
	*netbench.Output
	format func(io.Writer, *netbench.File) error
}

// openedOutputs are ready to be written, or to be discarded.
type openedOutputs struct {
	files []openOutput
	// toStdout is set if one of them is the standard output, which then has no
	// place for a table.
	toStdout bool
}

// openOutputs refuses two outputs, or an output and one of the inputs, that are
// the same file: the last one written would be all that is left.
func openOutputs(wanted []outputTo, inputs ...string) (opened openedOutputs, err error) {
	taken := map[string]string{} // file to who has it
	for _, path := range inputs {
		taken[identify(path)] = "it is read here"
	}
	defer func() {
		if err != nil {
			opened.discard()
		}
	}()
	for _, w := range wanted {
		if w.path == "" {
			continue
		}
		if by, ok := taken[identify(w.path)]; ok && !isNull(w.path) {
			return opened, usageError{fmt.Errorf("%s %s: %s, choose another file", w.flag, w.path, by)}
		}
		taken[identify(w.path)] = w.flag + " writes there"
		opened.toStdout = opened.toStdout || isStdout(w.path)
		output, err := netbench.OpenOutput(w.path)
		if err != nil {
			return opened, err
		}
		opened.files = append(opened.files, openOutput{output, w.format})
	}
	return opened, nil
}

// report writes the files and the table, and fails if a path did.
func (o *openedOutputs) report(std streams, file *netbench.File) error {
	if err := o.commit(file); err != nil {
		return err
	}
	if !o.toStdout {
		if err := netbench.WriteTable(std.out, file); err != nil {
			return err
		}
	}
	return failed(file)
}

func (o *openedOutputs) commit(file *netbench.File) error {
	for _, output := range o.files {
		if err := output.Commit(func(w io.Writer) error { return output.format(w, file) }); err != nil {
			return err
		}
	}
	return nil
}

func (o *openedOutputs) discard() {
	for _, output := range o.files {
		output.Discard()
	}
}

// identify returns a path that only names of the same file have, whether it
// exists or not.
func identify(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(dir, filepath.Base(path))
	}
	return path
}

func isNull(path string) bool { return sameFile(path, os.DevNull) }

func isStdout(path string) bool {
	there, err := os.Stat(path)
	if err != nil {
		return false
	}
	here, err := os.Stdout.Stat()
	return err == nil && os.SameFile(there, here)
}

func sameFile(a, b string) bool {
	first, err := os.Stat(a)
	if err != nil {
		return false
	}
	second, err := os.Stat(b)
	return err == nil && os.SameFile(first, second)
}
