package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/spliced-io/spliced/internal/netbench"
)

type benchSockmapCmd struct {
	Mode          []string `default:"rx-normal,rx-pass,rx-verdict-egress,rx-verdict-ingress,tx-normal,tx-pass,tx-verdict-ingress,tx-verdict-egress" help:"The way from socket to socket: rx-normal, rx-pass, rx-verdict-egress, rx-verdict-ingress, tx-normal, tx-pass, tx-verdict-ingress, tx-verdict-egress."`
	Consumer      []string `default:"read,splice" help:"How the far end takes what has arrived: read, splice."`
	Strp          size     `default:"0" placeholder:"BYTES" help:"Have a stream parser cut what is received into messages of so many bytes. It may crash the kernel: see docs/bench.md."`
	DelayConsumer duration `default:"0s" help:"Have the consumer take nothing for so long: what is queued meanwhile?"`
	Rounds        int      `default:"5" help:"Measure everything so many times, interleaved."`
	Duration      duration `default:"500ms" help:"Measure so long in each round."`
	Warmup        duration `default:"200ms" help:"Move so long before."`
	Size          size     `default:"128KiB" placeholder:"BYTES" help:"Bytes of one sendfile(2), or with --delay-consumer of one send(2)."`
	MaxQueued     size     `default:"64MiB" placeholder:"BYTES" help:"How far the sender may be ahead of the consumer: redirecting has no limit of its own."`
	benchOutputs
}

func (c *benchSockmapCmd) Run(ctx context.Context, std streams) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	options := c.options()
	if err := options.Validate(); err != nil {
		return benchUsage(err)
	}
	outputs, err := c.benchOutputs.open()
	if err != nil {
		return err
	}
	defer outputs.discard()
	line := newProgressLine(std.err)
	options.OnProgress = line.show
	file, err := netbench.RunSockmap(ctx, options)
	line.clear()
	if err != nil {
		return benchUsage(err)
	}
	return outputs.report(std, file, nil)
}

func (c *benchSockmapCmd) options() netbench.SockmapOptions {
	return netbench.SockmapOptions{
		Modes:        c.Mode,
		Consumers:    c.Consumer,
		Rounds:       c.Rounds,
		Duration:     time.Duration(c.Duration),
		Warmup:       time.Duration(c.Warmup),
		Size:         int(min(c.Size, math.MaxInt32)),
		Parse:        int(min(c.Strp, math.MaxInt32)),
		AllowParsers: os.Getenv(netbench.ParsersAllowed) == "1",
		Delay:        time.Duration(c.DelayConsumer),
		MaxQueued:    int64(c.MaxQueued),
		Tool:         fmt.Sprintf("spliced %s", version()),
	}
}
