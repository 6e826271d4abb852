package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/spliced-io/spliced/internal/netbench"
)

// benchCmd measures relays.
type benchCmd struct {
	Net     benchNetCmd     `cmd:"" help:"Measure paths from A through B to C on this machine: this relay's engines beside other proxies."`
	Sockmap benchSockmapCmd `cmd:"" help:"Measure redirecting from socket to socket in BPF (sockmap), as the kernel's own benchmark does."`
	Sink    benchSinkCmd    `cmd:"" help:"Be the far end, for a source on another machine: answers and verifies what it is sent."`
	Source  benchSourceCmd  `cmd:"" help:"Be the near end: send to a sink, straight or through a proxy, and measure."`
	Report  benchReportCmd  `cmd:"" help:"Write a result file as a table, a page or charts."`
	Diff    benchDiffCmd    `cmd:"" help:"Compare two result files; exit with 1 if the second is worse."`
	Role    benchRoleCmd    `cmd:"" hidden:"" help:"A part of bench net, as a process of its own."`
}

// benchRoleCmd is what bench net starts of this program.
type benchRoleCmd struct {
	Role string `arg:""`
}

func (c *benchRoleCmd) Run(ctx context.Context) error {
	return netbench.RunRole(ctx, c.Role, os.Stdin, os.Stdout)
}

// interruptible ends ctx at ^C and what else is meant to end a program.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
}

// benchUsage has main exit with 2 for what was wrong on the command line.
func benchUsage(err error) error {
	var usage *netbench.UsageError
	if errors.As(err, &usage) {
		return usageError{err}
	}
	return err
}
