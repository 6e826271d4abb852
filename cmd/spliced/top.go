package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/cmd/spliced/internal/adminapi"
)

type topCmd struct {
	adminFlags
	Interval duration `default:"1s" placeholder:"TIME" help:"Between two looks. Default: 1s."`
	Sessions count    `default:"100" placeholder:"N" help:"How many of the busiest sessions are looked at. Default: 100."`
	Sort     string   `default:"rate" enum:"rate,bytes,age,idle,id" placeholder:"BY" help:"Which of them come first: by rate, bytes, age, idle or id. Default: rate."`
}

// Run shows what a daemon does: on a terminal again and again, else once.
func (c *topCmd) Run(ctx context.Context, std streams) error {
	client, err := c.client(std)
	if err == nil {
		err = c.live(ctx, client, std)
		if errors.Is(err, errNoTerminal) {
			err = c.once(ctx, client, std.out)
		}
	}
	return told(client, err, std)
}

// errNoTerminal says that there is none to draw on.
var errNoTerminal = errors.New("not a terminal")

// once prints one frame, of as long as the interval.
func (c *topCmd) once(ctx context.Context, client *adminapi.Client, out io.Writer) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	var last *adminapi.Snapshot
	done := errors.New("done")
	err := client.Watch(ctx, time.Duration(c.Interval), int(c.Sessions), func(line []byte) error {
		now := new(adminapi.Snapshot)
		if err := json.Unmarshal(line, now); err != nil {
			return err
		}
		if last == nil {
			last = now
			return nil
		}
		for _, l := range (&frame{last: last, now: now, sort: c.Sort}).lines() {
			if _, err := fmt.Fprintln(out, l.text); err != nil {
				return err
			}
		}
		return done
	})
	if errors.Is(err, done) {
		return nil
	}
	return err
}
