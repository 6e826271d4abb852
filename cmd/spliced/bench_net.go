package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/spliced-io/spliced/internal/netbench"
)

type benchNetCmd struct {
	Topology string   `default:"auto" help:"Where A, B and C are: netns (three network namespaces, needs root), netns-local (C on B), loopback, or auto for the first that is allowed."`
	Path     []string `default:"direct,gocopy,auto,haproxy-splice,nginx" help:"What is between A and C: direct, copy, splice, sockmap, wire, auto, gocopy, haproxy, haproxy-splice, nginx, socat."`
	Proxy    []string `sep:"none" placeholder:"NAME=COMMAND" help:"One more path: a shell command with {listen} and {target} in it, which are host:port. May be repeated."`
	benchLoad
	benchOutputs
}

func (c *benchNetCmd) Run(ctx context.Context, std streams) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	options, err := c.options()
	if err != nil {
		return benchUsage(err)
	}
	// What can't be written is found out now, not after the run.
	outputs, err := c.benchOutputs.open()
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
	o, err := c.benchLoad.options()
	if err != nil {
		return o, err
	}
	o.Topology, o.Paths = c.Topology, c.Path
	o.Self, o.Relay = []string{self, "bench", "role"}, []string{self, "relay"}
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
