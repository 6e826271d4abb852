package main

import (
	"fmt"
	"time"

	"github.com/spliced-io/spliced/internal/netbench"
)

// benchLoad are the flags of what is sent, and how long.
type benchLoad struct {
	Workload []string `default:"bulk,rr" help:"What to send: bulk, bulk-both, rr, rr-open, conn, idle, mixed."`
	Rounds   int      `default:"5" help:"Measure everything so many times, interleaved."`
	Duration duration `default:"1s" help:"Measure so long in each round."`
	Warmup   duration `default:"200ms" help:"Send so long before."`
	Streams  []int    `placeholder:"N,..." help:"Connections at a time. By default 1, and 8 for conn."`
	Size     *size    `placeholder:"BYTES" help:"Bytes of a message or of a write. By default 64, and 128KiB for bulk."`
	Pairs    int      `default:"1000" help:"Joined connections of idle."`
	Rate     float64  `default:"2000" help:"Exchanges per second of rr-open, over all streams together."`
}

func (l *benchLoad) options() (o netbench.Options, err error) {
	o = netbench.Options{
		Workloads: l.Workload,
		Rounds:    l.Rounds,
		Duration:  time.Duration(l.Duration),
		Warmup:    time.Duration(l.Warmup),
		Streams:   l.Streams,
		Pairs:     l.Pairs,
		Rate:      l.Rate,
		Tool:      "spliced " + version(),
	}
	o.Size, err = chosenSize(l.Size)
	return o, err
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
