package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/splice"
)

type relayCmd struct {
	Listen  listenArg `arg:"" help:"Where to listen: host:port, :port, unix:/path, or systemd for the sockets that it passes. Port 0 has the kernel choose."`
	Targets []target  `arg:"" optional:"" name:"target" help:"What to join with, tried in turn: host:port, :port or unix:/path. Without any, a small HTTP server of its own."`

	Engine           string   `enum:"auto,copy,splice,sockmap,wire" default:"auto" help:"What moves the bytes: ${enum}."`
	IdleTimeout      duration `default:"1h" help:"End a connection in which no byte has moved for this long (0: never)."`
	HalfCloseTimeout duration `default:"1m" help:"The same, once one direction has ended (0: as --idle-timeout)."`
	MaxLifetime      duration `default:"0s" help:"End a connection after this long, busy or not (0: never)."`
	ConnectTimeout   duration `default:"5s" help:"Give each target this long to answer."`
	MaxBytes         size     `default:"0" help:"End a direction after so many bytes, like 64KiB or 10MB (0: never)."`
	MaxConns         count    `default:"0" help:"Have clients wait while so many connections are open (0: what the limit of open files allows)."`
	DrainTimeout     duration `default:"30s" help:"After SIGTERM, give connections this long to end."`
	LogFormat        string   `enum:"text,json" default:"text" help:"How to log to standard error: ${enum}."`
	Metrics          *address `placeholder:"ADDR" help:"Serve /metrics, /healthz and /connections here."`
}

// Validate is called by kong, after the values are parsed.
func (c *relayCmd) Validate() error {
	if c.ConnectTimeout == 0 {
		return errors.New("--connect-timeout: a target needs time to answer: want one like 5s")
	}
	if c.Metrics != nil && c.Metrics.Network != "tcp" {
		return fmt.Errorf("--metrics: address %q: want host:port or :port", c.Metrics)
	}
	return nil
}

func (c *relayCmd) Run(ctx context.Context, std streams) error {
	log := newLogger(std.err, c.LogFormat)
	engine, err := c.engine()
	if err != nil {
		return err
	}
	targets, err := resolvable(ctx, log, c.Targets)
	if err != nil {
		return err
	}
	// From here on there is something to tidy up after a signal.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	listeners, err := c.Listen.open(ctx, os.LookupEnv, os.Getpid())
	if err != nil {
		return err
	}

	maxConns := proxy.RoomForConns()
	if c.MaxConns > count(maxConns) {
		log.Warn("the limit of open files has no room for so many connections", "max_conns", int(c.MaxConns), "room", maxConns)
	} else if c.MaxConns > 0 {
		maxConns = int(c.MaxConns)
	}
	events := newEvents(log)
	server := &proxy.Server{
		Targets:        targets,
		ConnectTimeout: time.Duration(c.ConnectTimeout),
		MaxConns:       maxConns,
		Hooks:          events.hooks(),
		Options: []splice.Option{
			splice.Use(engine),
			splice.IdleTimeout(time.Duration(c.IdleTimeout)),
			splice.HalfCloseTimeout(time.Duration(c.HalfCloseTimeout)),
			splice.MaxLifetime(time.Duration(c.MaxLifetime)),
			splice.MaxBytes(int64(c.MaxBytes), int64(c.MaxBytes)),
		},
	}
	if len(targets) == 0 {
		b, err := startBuiltin(ctx, server)
		if err != nil {
			closeAll(listeners)
			return err
		}
		defer b.stop()
		server.Targets = []proxy.Addr{b.addr}
	}
	if c.Metrics != nil {
		m, err := startMetrics(ctx, c.Metrics.Addr, server, events)
		if err != nil {
			closeAll(listeners)
			return err
		}
		defer m.stop()
		log.Info("metrics", "url", "http://"+m.addr+"/metrics")
	}

	log.Info("relay started", "targets", names(server.Targets), "engine", engine.String(), "max_conns", maxConns)
	served := make(chan error, len(listeners))
	for _, ln := range listeners {
		addr := listenAddr(ln)
		wait, err := server.Start(ln)
		if err != nil {
			_ = server.Close()
			closeAll(listeners)
			return err
		}
		go func() { served <- wait() }()
		fmt.Fprintf(std.out, "listening on %s\n", addr)
	}
	if len(targets) == 0 {
		fmt.Fprintf(std.out, "try: %s\n", curlLine(listeners[0]))
	}
	service := newNotifier(os.LookupEnv)
	service.tell(log, "READY=1")

	select {
	case err = <-served: // a listener failed for good
	case <-signals:
		service.tell(log, "STOPPING=1")
		c.drain(server, log, signals)
	}
	_ = server.Close()
	if errors.Is(err, proxy.ErrServerClosed) {
		err = nil
	}
	log.Info("relay ended")
	return err
}

// drain waits for the connections to end: until the timeout, or a further
// signal.
func (c *relayCmd) drain(server *proxy.Server, log *slog.Logger, signals <-chan os.Signal) {
	log.Info("draining", "open", server.Stats().Open, "timeout", time.Duration(c.DrainTimeout).String())
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(c.DrainTimeout))
	defer cancel()
	drained := make(chan error, 1)
	go func() { drained <- server.Shutdown(ctx) }()
	var err error
	select {
	case err = <-drained:
	case <-signals:
		cancel()
		err = <-drained
	}
	if err != nil {
		log.Warn("cutting connections", "open", server.Stats().Open)
	}
}

// engine finds out before the first client does whether the engine named can
// run here.
func (c *relayCmd) engine() (splice.Engine, error) {
	engine, err := splice.ParseEngine(c.Engine)
	if err != nil {
		return engine, usageError{err}
	}
	if err := tryEngine(engine); err != nil {
		return engine, fmt.Errorf("--engine %s: %w", engine, err)
	}
	return engine, nil
}

// resolvable leaves targets as they are, names and all: they are resolved at
// each dial. If none of them has an address the command line is wrong.
func resolvable(ctx context.Context, log *slog.Logger, targets []target) ([]proxy.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var addrs []proxy.Addr
	var errs []string
	for _, t := range targets {
		addrs = append(addrs, t.Addr)
		if t.Network != "tcp" {
			continue
		}
		host, _, err := net.SplitHostPort(t.Address)
		if err != nil {
			return nil, err // ParseAddr has split it before
		}
		if host == "" || net.ParseIP(host) != nil {
			continue
		}
		if _, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host); err != nil {
			errs = append(errs, fmt.Sprintf("target %q: %v", t.Addr, err))
		}
	}
	if len(errs) > 0 && len(errs) == len(targets) {
		return nil, errors.New(strings.Join(errs, "; "))
	}
	for _, e := range errs {
		log.Warn("target can't be resolved now", "error", e)
	}
	return addrs, nil
}

func names(addrs []proxy.Addr) []string {
	s := make([]string, len(addrs))
	for i, a := range addrs {
		s[i] = a.String()
	}
	return s
}

func closeAll(listeners []net.Listener) {
	for _, ln := range listeners {
		_ = ln.Close()
	}
}

// listenAddr says where ln listens, the way that ParseAddr reads it.
func listenAddr(ln net.Listener) string {
	if ln.Addr().Network() == "unix" {
		return "unix:" + ln.Addr().String()
	}
	return ln.Addr().String()
}

// curlLine is a command that reaches the built-in target through ln.
func curlLine(ln net.Listener) string {
	ta, ok := ln.Addr().(*net.TCPAddr)
	if !ok {
		return "curl --unix-socket " + ln.Addr().String() + " http://localhost/"
	}
	ip := ta.IP
	switch {
	case ip.IsUnspecified() && ip.To4() == nil && ip != nil:
		ip = net.IPv6loopback
	case ip.IsUnspecified():
		ip = net.IPv4(127, 0, 0, 1)
	}
	return "curl http://" + net.JoinHostPort(ip.String(), fmt.Sprint(ta.Port)) + "/"
}
