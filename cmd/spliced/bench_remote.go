package main

import (
	"context"
	"errors"
	"fmt"
	"time"

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
	Target    string   `arg:"" name:"address" help:"The sink, or the proxy in front of it: host:port."`
	Name      string   `default:"remote" help:"What the path is called in the results."`
	Workload  []string `default:"bulk,rr" help:"What to send: bulk, bulk-both, rr, rr-open, conn, idle, mixed."`
	Rounds    int      `default:"5" help:"Measure everything so many times, interleaved."`
	Duration  duration `default:"1s" help:"Measure so long in each round."`
	Warmup    duration `default:"200ms" help:"Send so long before."`
	Streams   []int    `placeholder:"N,..." help:"Connections at a time. By default 1, and 8 for conn."`
	Size      *size    `placeholder:"BYTES" help:"Bytes of a message or of a write. By default 64, and 128KiB for bulk."`
	Pairs     int      `default:"1000" help:"Joined connections of idle."`
	Rate      float64  `default:"2000" help:"Exchanges per second of rr-open, over all streams together."`
	JSON      string   `name:"json" placeholder:"FILE" help:"Write the results here."`
	HTML      string   `name:"html" placeholder:"FILE" help:"Write a page with charts here."`
	Benchstat string   `placeholder:"FILE" help:"Write lines for benchstat here."`
}

func (c *benchSourceCmd) Run(ctx context.Context, std streams) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	o := netbench.Options{
		Workloads: c.Workload,
		Rounds:    c.Rounds,
		Duration:  time.Duration(c.Duration),
		Warmup:    time.Duration(c.Warmup),
		Streams:   c.Streams,
		Pairs:     c.Pairs,
		Rate:      c.Rate,
		Tool:      "spliced " + version(),
	}
	var err error
	if o.Size, err = chosenSize(c.Size); err != nil {
		return err
	}
	outputs, err := openRunOutputs(c.JSON, c.HTML, c.Benchstat)
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
