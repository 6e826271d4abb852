package main

import (
	"fmt"
	"io"
	"os"

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

// benchOutputs are the flags of a command that measures; empty: not wanted.
type benchOutputs struct {
	JSON      string `name:"json" placeholder:"FILE" help:"Write the results here, see docs/bench.md."`
	HTML      string `name:"html" placeholder:"FILE" help:"Write a page with charts here."`
	Benchstat string `placeholder:"FILE" help:"Write lines for benchstat here."`
}

func (o *benchOutputs) open() (openedOutputs, error) {
	return openOutputs([]outputTo{
		{"--json", o.JSON, netbench.WriteJSON},
		{"--html", o.HTML, netbench.WriteHTML},
		{"--benchstat", o.Benchstat, netbench.WriteBenchstat},
	})
}

// openOutputs refuses two outputs, or an output and one of the inputs, that are
// the same file: the last one written would be all that is left.
func openOutputs(wanted []outputTo, inputs ...string) (opened openedOutputs, err error) {
	type claim struct{ path, by string }
	var taken []claim
	for _, path := range inputs {
		taken = append(taken, claim{path, "it is read here"})
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
		for _, other := range taken {
			if netbench.SameOutput(other.path, w.path) && !netbench.SameOutput(w.path, os.DevNull) {
				return opened, usageError{fmt.Errorf("%s %s: %s, choose another file", w.flag, w.path, other.by)}
			}
		}
		taken = append(taken, claim{w.path, w.flag + " writes there"})
		opened.toStdout = opened.toStdout || isStdout(w.path)
		output, err := netbench.OpenOutput(w.path)
		if err != nil {
			return opened, err
		}
		opened.files = append(opened.files, openOutput{output, w.format})
	}
	return opened, nil
}

// report writes the files and the table, whatever becomes of the others, and
// fails if a file can't be written, a path has failed or the run has: one that
// could not clean up has results all the same.
func (o *openedOutputs) report(std streams, file *netbench.File, runErr error) error {
	failures := []error{o.commit(file)}
	if !o.toStdout {
		failures = append(failures, netbench.WriteTable(std.out, file))
	}
	return inOneLine(append(failures, failed(file), runErr))
}

// commit writes them all, also if one can't be written.
func (o *openedOutputs) commit(file *netbench.File) error {
	var failures []error
	for _, output := range o.files {
		failures = append(failures, output.Commit(func(w io.Writer) error { return output.format(w, file) }))
	}
	return inOneLine(failures)
}

// inOneLine is errors.Join for the line that says why the program fails.
func inOneLine(failures []error) (all error) {
	for _, err := range failures {
		switch {
		case err == nil:
		case all == nil:
			all = err
		default:
			all = fmt.Errorf("%w; %w", all, err)
		}
	}
	return all
}

func (o *openedOutputs) discard() {
	for _, output := range o.files {
		output.Discard()
	}
}

func isStdout(path string) bool {
	there, err := os.Stat(path)
	if err != nil {
		return false
	}
	here, err := os.Stdout.Stat()
	return err == nil && os.SameFile(there, here)
}
