package main

import (
	"context"
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/proxy"
)

// drain lets connections end as the configuration says, or until a further
// signal to end. Others are not heeded any more, and said not to be.
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
	for {
		select {
		case err := <-drained:
			cutting(server, log, err)
			return
		case s := <-signals:
			if toEnd(s) {
				cancel()
			} else {
				log.Warn("signal not heeded", "signal", s.String(), "error", "this process drains")
			}
		}
	}
}

// toEnd says whether a signal asks for the end.
func toEnd(s os.Signal) bool { return s == syscall.SIGTERM || s == syscall.SIGINT }

// cutting says how many connections a drain has left that ended with err.
func cutting(server *proxy.Server, log *slog.Logger, err error) {
	if open := server.Stats().Open; err != nil && open > 0 {
		log.Warn("cutting connections", "open", open)
	}
}
