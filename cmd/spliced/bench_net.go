package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spliced-io/spliced/internal/netbench"
)

type benchNetCmd struct {
	Topology  string   `default:"auto" help:"Where A, B and C are: netns (three network namespaces, needs root), netns-local (C on B), loopback, or auto for the first that is allowed."`
	Path      []string `default:"direct,gocopy,auto,haproxy-splice,nginx" help:"What is between A and C: direct, copy, splice, sockmap, wire, auto, gocopy, haproxy, haproxy-splice, nginx, socat."`
	Proxy     []string `sep:"none" placeholder:"NAME=COMMAND" help:"One more path: a shell command with {listen} and {target} in it, which are host:port. May be repeated."`
	Workload  []string `default:"bulk,rr" help:"What to send: bulk, bulk-both, rr, rr-open, conn, idle, mixed."`
	Rounds    int      `default:"5" help:"Measure everything so many times, interleaved."`
	Duration  duration `default:"1s" help:"Measure so long in each round."`
	Warmup    duration `default:"200ms" help:"Send so long before."`
	Streams   []int    `placeholder:"N,..." help:"Connections at a time. By default 1, and 8 for conn."`
	Size      *size    `placeholder:"BYTES" help:"Bytes of a message or of a write. By default 64, and 128KiB for bulk."`
	Pairs     int      `default:"1000" help:"Joined connections of idle."`
	Rate      float64  `default:"2000" help:"Exchanges per second of rr-open, over all streams together."`
	JSON      string   `name:"json" placeholder:"FILE" help:"Write the results here, see docs/bench.md."`
	HTML      string   `name:"html" placeholder:"FILE" help:"Write a page with charts here."`
	Benchstat string   `placeholder:"FILE" help:"Write lines for benchstat here."`
}

func (c *benchNetCmd) Run(ctx context.Context, std streams) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	options, err := c.options()
	if err != nil {
		return benchUsage(err)
	}
	// What can't be written is found out now, not after the run.
	outputs, err := openRunOutputs(c.JSON, c.HTML, c.Benchstat)
	if err != nil {
		return err
	}
	defer outputs.discard()

	line := newProgressLine(std.err)
	options.OnProgress = line.show
	file, err := netbench.Run(ctx, options)
	line.clear()
	if file == nil {
		return benchUsage(err)
	}
	return outputs.report(std, file, err)
}

// options turns the flags into what netbench takes.
func (c *benchNetCmd) options() (netbench.Options, error) {
	self, err := os.Executable()
	if err != nil {
		return netbench.Options{}, fmt.Errorf("find this program: %w", err)
	}
	o := netbench.Options{
		Topology:  c.Topology,
		Paths:     c.Path,
		Workloads: c.Workload,
		Rounds:    c.Rounds,
		Duration:  time.Duration(c.Duration),
		Warmup:    time.Duration(c.Warmup),
		Streams:   c.Streams,
		Pairs:     c.Pairs,
		Rate:      c.Rate,
		Tool:      "spliced " + version(),
		Self:      []string{self, "bench", "role"},
		Relay:     []string{self, "relay"},
	}
	if o.Size, err = chosenSize(c.Size); err != nil {
		return o, err
	}
	for _, text := range c.Proxy {
		proxy, err := netbench.ParseProxy(text)
		if err != nil {
			return o, err
		}
		o.Proxies = append(o.Proxies, proxy)
		if !slices.Contains(o.Paths, proxy.Name) {
			o.Paths = append(o.Paths, proxy.Name)
		}
	}
	return o, o.Validate()
}

// chosenSize is 0 for the workload's own.
func chosenSize(given *size) (int, error) {
	if given == nil {
		return 0, nil
	}
	if *given < 1 || *given > netbench.MaxSize {
		return 0, usageError{fmt.Errorf("size %d: want 1 to %d bytes", *given, netbench.MaxSize)}
	}
	return int(*given), nil
}

// failed is an error if a path did not do what a relay must.
func failed(file *netbench.File) error {
	failures := file.Failures()
	if len(failures) == 0 {
		return nil
	}
	if len(failures) == 1 {
		return errors.New(failures[0])
	}
	return fmt.Errorf("%s; and %d more", failures[0], len(failures)-1)
}
