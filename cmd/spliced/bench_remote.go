package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spliced-io/spliced/internal/netbench"
)

type benchSinkCmd struct {
	Listen string `arg:"" name:"address" help:"Where to listen: host:port or :port."`
}

func (c *benchSinkCmd) Run(ctx context.Context, std streams) error {
	if c.Listen == "" { // net would listen everywhere, on any port
		return usageError{errors.New("listen: the address is empty")}
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	ln, err := netbench.ListenSink(ctx, c.Listen)
	if err != nil {
		return err
	}
	fmt.Fprintf(std.out, "listening on %s\n", ln.Addr())
	return netbench.NewSink().Serve(ctx, ln)
}

type benchSourceCmd struct {
	Target string `arg:"" name:"address" help:"The sink, or the proxy in front of it: host:port."`
	Name   string `default:"remote" help:"What the path is called in the results."`
	benchLoad
	benchOutputs
}

func (c *benchSourceCmd) Run(ctx context.Context, std streams) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	o, err := c.options()
	if err != nil {
		return err
	}
	outputs, err := c.benchOutputs.open()
	if err != nil {
		return err
	}
	defer outputs.discard()
	line := newProgressLine(std.err)
	o.OnProgress = line.show
	file, err := netbench.RunSource(ctx, c.Name, c.Target, o)
	line.clear()
	if err != nil {
		return benchUsage(err)
	}
	return outputs.report(std, file, nil)
}
