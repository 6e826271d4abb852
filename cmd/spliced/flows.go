package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"text/tabwriter"
	"time"

	"github.com/spliced-io/spliced/proxy"
)

type flowsCmd struct {
	Instance string        `placeholder:"NAME" help:"Only this instance of the relay."`
	Root     string        `placeholder:"DIR" help:"Where instances are pinned, if not in /sys/fs/bpf/spliced."`
	Watch    time.Duration `placeholder:"INTERVAL" help:"List again and again, until interrupted."`
	JSON     bool          `name:"json" help:"One JSON object a line."`
	End      string        `placeholder:"CLIENT" help:"End the flow of that client (address:port), with a RST to both sides."`
	Purge    bool          `help:"Remove all that is pinned. Flows that no relay has any more are cut."`
}

// A flowView is a spliced flow as a person or a program reads it.
type flowView struct {
	Instance      string         `json:"instance"`
	Listener      string         `json:"listener,omitempty"` // "": not known
	Upstream      string         `json:"upstream,omitempty"`
	Server        string         `json:"server,omitempty"`
	Client        netip.AddrPort `json:"client"`
	Target        netip.AddrPort `json:"target"`
	Started       time.Time      `json:"started"`
	Idle          time.Duration  `json:"idle_ns"`      // since a byte has moved
	LastSeen      time.Duration  `json:"last_seen_ns"` // since the last packet
	Closed        time.Duration  `json:"closed_ns"`    // for so long windows were closed for the hand-over
	BytesToTarget int64          `json:"bytes_to_target"`
	BytesToClient int64          `json:"bytes_to_client"`
	Packets       [2]uint64      `json:"packets"`
	Retransmits   [2]uint64      `json:"retransmits"`
	Errors        [2]uint64      `json:"errors"`
	TooBig        [2]uint64      `json:"too_big"` // for the interface that they were to leave by

	end func() error
}

var errNoFlow = errors.New("no such flow")

// Validate is called by kong, after the values are parsed.
func (c *flowsCmd) Validate() error {
	if c.Watch < 0 || c.Purge && c.End != "" || c.Watch > 0 && (c.Purge || c.End != "") {
		return errors.New("--watch, --end and --purge exclude each other")
	}
	if c.End != "" {
		if _, err := netip.ParseAddrPort(c.End); err != nil {
			return fmt.Errorf("--end: %w", err)
		}
	}
	return nil
}

func (c *flowsCmd) Run(ctx context.Context, std streams) error {
	names := []string{c.Instance}
	if c.Instance == "" {
		var err error
		if names, err = wireInstances(c.Root); err != nil {
			return err
		}
	}
	switch {
	case c.Purge:
		var errs []error
		for _, name := range names {
			errs = append(errs, purgeWire(c.Root, name))
		}
		return errors.Join(errs...)
	case c.End != "":
		return c.end(names)
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	for {
		err := c.list(std.out, names)
		if err != nil || c.Watch == 0 {
			return err
		}
		timer := time.NewTimer(c.Watch)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

func (c *flowsCmd) end(names []string) error {
	client := netip.MustParseAddrPort(c.End)
	found := false
	for _, name := range names {
		err := wireFlows(c.Root, name, func(f *flowView) error {
			if f.Client == client {
				found = true
				return f.end()
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("end %s: %w", client, errNoFlow)
	}
	return nil
}

func (c *flowsCmd) list(out io.Writer, names []string) error {
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	lines := json.NewEncoder(out)
	if !c.JSON {
		fmt.Fprintln(table, "INSTANCE\tLISTENER\tCLIENT\tTARGET\tAGE\tIDLE\tSEEN\tHELD\tTO TARGET\tTO CLIENT\tPACKETS\tRETRANSMITS\tERRORS")
	}
	for _, name := range names {
		err := wireFlows(c.Root, name, func(f *flowView) error {
			if c.JSON {
				return lines.Encode(f)
			}
			_, err := fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d/%d\t%d/%d\t%d/%d\n",
				f.Instance, cmp.Or(f.Listener, proxy.Adopted), f.Client, f.Target, time.Since(f.Started).Round(time.Second), f.Idle.Round(time.Millisecond),
				f.LastSeen.Round(time.Millisecond), f.Closed.Round(time.Microsecond),
				f.BytesToTarget, f.BytesToClient, f.Packets[0], f.Packets[1],
				f.Retransmits[0], f.Retransmits[1], f.Errors[0], f.Errors[1])
			return err
		})
		if err != nil {
			return err
		}
	}
	return table.Flush()
}
