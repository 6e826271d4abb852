package main

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/spliced-io/spliced/proxy"
)

// drain lets connections end as the configuration says, or until a further
// signal.
func drain(server *proxy.Server, log *slog.Logger, signals <-chan os.Signal) {
	timeout := "never"
	if t := server.CurrentConfig().Drain.Timeout; t != proxy.Never {
		timeout = time.Duration(t).String()
	}
	server.Leave() // what is spliced needs nobody
	log.Info("draining", "open", server.Stats().Open, "timeout", timeout)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	drained := make(chan error, 1)
	go func() { drained <- server.Drain(ctx) }()
	var err error
	select {
	case err = <-drained:
	case <-signals:
		cancel()
		err = <-drained
	}
	cutting(server, log, err)
}

// cutting says how many connections a drain has left that ended with err.
func cutting(server *proxy.Server, log *slog.Logger, err error) {
	if open := server.Stats().Open; err != nil && open > 0 {
		log.Warn("cutting connections", "open", open)
	}
}
