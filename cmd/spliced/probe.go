package main

import (
	"context"
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spliced-io/spliced/internal/probe"
)

type probeCmd struct {
	JSON bool   `name:"json" help:"Print a JSON object. See docs/relay.md."`
	PID  *int   `name:"pid" xor:"subject" placeholder:"N" help:"Say which sockets of this process are in somebody's sockmap instead."`
	Conn string `xor:"subject" placeholder:"A-B" help:"Say which ends of this connection are, given by its two addresses with ports."`
}

func (c *probeCmd) Run(ctx context.Context, std streams) error {
	if c.PID != nil || c.Conn != "" {
		return c.membership(std)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	report := probe.Run(ctx)
	if c.JSON {
		enc := json.NewEncoder(std.out)
		enc.SetIndent("", "  ")
		return enc.Encode(report)
	}
	fmt.Fprintf(std.out, "%s %s %s, uid %d\n\n", report.OS, report.Kernel, report.Arch, report.UID)
	w := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	for _, p := range report.Capabilities {
		fmt.Fprintf(w, "%s\t%s\t%s\n", p.Name, p.Answer, p.Reason)
	}
	return w.Flush()
}
