package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spliced-io/spliced/internal/fio"
)

// fioCmd hands everything after "fio" to a parser of its own: the command line
// is fio's.
type fioCmd struct {
	Args []string `arg:"" optional:"" help:"What fio(1) takes; see: spliced fio --help."`
}

// exitStatus ends the program with a code that a command has chosen, after it
// has said why.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func (c *fioCmd) Run(ctx context.Context, std streams) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	code := fio.Main(ctx, c.Args, fio.Streams{Out: std.out, Err: std.err, Terminal: isTerminal(std.err), Version: version()})
	if code != 0 {
		return exitStatus(code)
	}
	return nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
