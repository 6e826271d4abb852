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
	"sync"
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
	MaxConns         count    `default:"0" help:"Have clients wait while so many connections are open (0: what the limit of open files allows, beside those that wire carries)."`
	DrainTimeout     duration `default:"30s" help:"After SIGTERM, give connections this long to end (0: for ever)."`
	LogFormat        string   `enum:"text,json" default:"text" help:"How to log to standard error: ${enum}."`
	Metrics          *address `placeholder:"ADDR" help:"Serve /metrics, /healthz and /connections here."`
	Instance         string   `placeholder:"NAME" help:"Connections that were handed over to wire outlive the relay under this name; its next start adopts them."`
	InstanceRoot     string   `placeholder:"DIR" help:"Where instances are pinned, if not in /sys/fs/bpf/spliced."`
	WireAfterBytes   size     `default:"1MiB" help:"With --engine auto, hand a connection over to wire after so many bytes."`
	WireAfterAge     duration `default:"1s" help:"The same, after this long, whichever comes first."`
}

// Validate is called by kong, after the values are parsed.
func (c *relayCmd) Validate() error {
	if c.ConnectTimeout == 0 {
		return errors.New("--connect-timeout: a target needs time to answer: want one like 5s")
	}
	if c.Metrics != nil && c.Metrics.Network != "tcp" {
		return fmt.Errorf("--metrics: address %q: want host:port or :port", c.Metrics)
	}
	if c.Instance != "" && c.Engine != "auto" && c.Engine != "wire" {
		return fmt.Errorf("--instance: engine %s hands nothing over: want --engine auto or wire", c.Engine)
	}
	if c.WireAfterBytes == 0 || c.WireAfterAge == 0 {
		return errors.New("--wire-after-bytes, --wire-after-age: want more than 0 (--engine wire hands over at once)")
	}
	return nil
}

// wire has connections handed over where this process may, of its own accord.
func (c *relayCmd) wire() splice.WirePolicy {
	return splice.WirePolicy{Upgrade: true, Instance: c.Instance, Root: c.InstanceRoot}
}

func (c *relayCmd) Run(ctx context.Context, std streams) error {
	defer tune()()
	defer outliveReaders()()
	lines := newPatientLog(std.err)
	defer lines.Close()
	log := newLogger(lines, c.LogFormat)
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
	defer lines.leaveAt(ctx, syscall.SIGTERM, syscall.SIGINT)()

	passed, err := activated(os.LookupEnv, os.Getpid())
	if err != nil {
		return err
	}
	events := newEvents(log)
	server := &proxy.Server{Hooks: events.hooks(), Listen: passed.listen, Wire: c.wire()}
	if len(targets) == 0 {
		b, err := startBuiltin(ctx, server)
		if err != nil {
			passed.close()
			return err
		}
		defer b.stop()
		targets = []proxy.Addr{b.addr}
	}
	server.Config = c.config(engine, targets, passed)
	if room := server.Config.RoomForConns(); c.MaxConns > count(room) {
		log.Warn("the limit of open files has no room for so many connections", "max_conns", int(c.MaxConns), "room", room)
	}
	server.BeforeAccept = func() error { return c.harden(log, engine) }
	if c.Metrics != nil {
		m, err := startMetrics(ctx, c.Metrics.Addr, server, newCollector(server, events))
		if err != nil {
			passed.close()
			return err
		}
		defer m.stop()
		log.Info("metrics", "url", "http://"+m.addr+"/metrics")
	}

	if err := server.Start(ctx); err != nil {
		passed.close()
		if inner := errors.Unwrap(err); inner != nil {
			err = inner // the listener's name is nothing to the user
		}
		return err
	}
	if c.Instance != "" {
		log.Info("flows adopted", "instance", c.Instance, "flows", server.Stats().Adopted)
	}
	log.Info("relay started", "targets", names(targets), "engine", engine.String(), "max_conns", server.Stats().MaxOpen)
	addrs := server.Addrs(relayName)
	for _, addr := range addrs {
		fmt.Fprintf(std.out, "listening on %s\n", listenAddr(addr))
	}
	if len(c.Targets) == 0 {
		fmt.Fprintf(std.out, "try: %s\n", curlLine(addrs[0]))
	}
	service := newNotifier(os.LookupEnv)
	service.tell(log, "READY=1")
	defer c.readyWire(engine)()

	<-signals
	service.tell(log, "STOPPING=1")
	drain(server, log, signals)
	_ = server.Close()
	events.close()
	log.Info("relay ended")
	return nil
}

// readyWire has the program of wire loaded in the background, until stop is called. What is missing for
// it the connections say that would have gone by it.
func (c *relayCmd) readyWire(engine splice.Engine) (stop func()) {
	if engine != splice.EngineAuto && engine != splice.EngineWire {
		return func() {}
	}
	release := func() {}
	var loading sync.WaitGroup
	loading.Go(func() { release, _ = splice.KeepWire(c.wire()) })
	return func() {
		loading.Wait()
		release()
	}
}

// relayName is that of the one listener and the one upstream.
const relayName = "relay"

// config is a relay as what it is: a proxy of one listener and one upstream,
// whose servers are tried in turn.
func (c *relayCmd) config(engine splice.Engine, targets []proxy.Addr, passed *passedSockets) proxy.Config {
	listen := c.Listen.addr.String()
	if c.Listen.systemd || passed.any() {
		listen = "systemd" // it has bound the address, whatever that is, so nobody else can
	}
	return proxy.Config{
		MaxConnections: int(c.MaxConns),
		Wire:           proxy.Wire{AfterBytes: c.WireAfterBytes, AfterAge: proxy.Duration(c.WireAfterAge)},
		Drain:          proxy.Drain{Timeout: forEver(c.DrainTimeout), Spread: -1},
		Listeners: map[string]proxy.Listener{relayName: {
			Address:  []string{listen},
			Upstream: relayName,
			Engine:   engine,
			Limits: proxy.Limits{
				Idle: forEver(c.IdleTimeout), HalfClose: forEver(c.HalfCloseTimeout),
				Lifetime: forEver(c.MaxLifetime), LifetimeJitter: -1,
				BytesToServer: proxy.Size(c.MaxBytes), BytesToClient: proxy.Size(c.MaxBytes),
			},
		}},
		Upstreams: map[string]proxy.Upstream{relayName: {
			Servers:        proxy.Targets(names(targets)...),
			Balance:        proxy.First,
			Attempts:       proxy.AllServers,
			ConnectTimeout: proxy.Duration(c.ConnectTimeout),
			Ejection:       proxy.Ejection{Off: true},
		}},
	}
}

// forEver is a duration of the command line, where 0 means never.
func forEver(d duration) proxy.Timeout {
	if d == 0 {
		return proxy.Never
	}
	return proxy.Timeout(d)
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

// listenAddr says where a listener listens, the way that ParseAddr reads it.
func listenAddr(addr net.Addr) string {
	if addr.Network() == "unix" {
		return "unix:" + addr.String()
	}
	return addr.String()
}

// curlLine is a command that reaches the built-in target through the listener of addr.
func curlLine(addr net.Addr) string {
	ta, ok := addr.(*net.TCPAddr)
	if !ok {
		return "curl -so /dev/null --unix-socket " + addr.String() + " http://localhost/bytes/256MiB http://localhost/"
	}
	ip := ta.IP
	switch {
	case ip.IsUnspecified() && ip.To4() == nil && ip != nil:
		ip = net.IPv6loopback
	case ip.IsUnspecified():
		ip = net.IPv4(127, 0, 0, 1)
	}
	// One connection: the second page tells how the first was carried.
	url := "http://" + net.JoinHostPort(ip.String(), fmt.Sprint(ta.Port)) + "/"
	return "curl -so /dev/null " + url + "bytes/256MiB " + url
}
