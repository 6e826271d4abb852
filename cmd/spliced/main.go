// Command spliced joins connections inside the Linux kernel: a relay, and the
// instruments that measure it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/alecthomas/kong"
)

// The exit codes. See docs/relay.md.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

type cli struct {
	Run     runCmd     `cmd:"" help:"Run the proxy that a configuration describes."`
	Check   checkCmd   `cmd:"" help:"Check a configuration, and say what it comes to."`
	Reload  reloadCmd  `cmd:"" help:"Have a running proxy read its configuration again."`
	Ctl     ctlCmd     `cmd:"" help:"Ask a running proxy, or have it do something: for scripts."`
	Top     topCmd     `cmd:"" help:"Watch a running proxy: its listeners, servers and busiest sessions."`
	Upgrade upgradeCmd `cmd:"" help:"Have a new process of the program take a running proxy's place, with all its connections."`
	Schema  schemaCmd  `cmd:"" help:"Print the JSON Schema of configurations."`
	OpenAPI openAPICmd `cmd:"" name:"openapi" help:"Print the description of the admin API, in OpenAPI."`
	Relay   relayCmd   `cmd:"" help:"Accept connections and join each to a target."`
	Bench   benchCmd   `cmd:"" help:"Measure relays, this one and others, side by side."`
	Probe   probeCmd   `cmd:"" help:"Measure what this kernel and this user may do."`
	Fio     fioCmd     `cmd:"" passthrough:"" help:"Measure moving bytes to, from and between files, by fio's job files."`
	Flows   flowsCmd   `cmd:"" help:"List, watch and end connections that were spliced packet by packet."`
	Version versionCmd `cmd:"" help:"Print the version."`
}

// streams are the standard ones: what a program reads goes to out, what a
// person reads goes to err.
type streams struct{ out, err io.Writer }

func main() { os.Exit(run(os.Args[1:], streams{os.Stdout, os.Stderr})) }

func run(args []string, std streams) int {
	var c cli
	parser, err := kong.New(&c,
		kong.Name("spliced"),
		kong.Description("Join two connections inside the Linux kernel."),
		kong.Writers(std.out, std.err),
		kong.WithHyphenPrefixedParameters(true), // -1 is a value, and a wrong one
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		panic(err) // the tags above are wrong: a test sees it first
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(std.err, "spliced: %v (see: spliced --help)\n", err)
		return exitUsage
	}
	command.Bind(std)
	command.BindTo(context.Background(), (*context.Context)(nil))
	err = command.Run()
	var usage usageError
	var code exitStatus
	switch {
	case errors.As(err, &code):
		return int(code)
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintf(std.err, "spliced: %v\n", err)
		return exitUsage
	default:
		fmt.Fprintf(std.err, "spliced: %v\n", err)
		return exitFailed
	}
}

// usageError is a wrong value on the command line that only a command sees.
type usageError struct{ error }
