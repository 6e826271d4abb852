package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/cmd/spliced/internal/adminapi"
	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/proxy/config"
)

type runCmd struct {
	Config string `short:"c" required:"" placeholder:"FILE" help:"What to do, in YAML: see docs/run.md."`
}

// Run is the daemon: it ends with a signal, or when another process has taken its
// place.
func (c *runCmd) Run(ctx context.Context, std streams) error {
	defer tune()()
	defer outliveReaders()()
	before, err := inherit(ctx, os.LookupEnv)
	if err != nil {
		return err
	}
	lines := newPatientLog(std.err)
	defer lines.Close()
	if err := c.run(ctx, std, lines, before); err != nil {
		before.Refuse(err)
		return err
	}
	return nil
}

func (c *runCmd) run(ctx context.Context, std streams, lines *patientLog, before *proxy.Inheritance) error {
	file, err := (config.Reader{Files: true}).Load(c.Config)
	if err != nil {
		fmt.Fprintln(std.err, err)
		before.Refuse(err)
		return exitStatus(exitUsage)
	}
	// From here on there is something to tidy up after a signal.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, append(upgradeSignals(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)...)
	defer signal.Stop(signals)
	defer lines.leaveAt(ctx, syscall.SIGTERM, syscall.SIGINT)()
	passed, err := activated(os.LookupEnv, os.Getpid())
	if err != nil {
		return err
	}
	d := newDaemon(c.Config, file, passed, std, lines)
	if err := d.start(ctx, file, before); err != nil {
		passed.close()
		return err
	}
	d.service.tell(d.log, "READY=1")
	defer d.end()
	for {
		select {
		case s := <-signals:
			switch {
			case s == syscall.SIGHUP:
				d.hangUp()
				continue
			case slices.Contains(upgradeSignals(), s):
				d.background.Go(func() { d.upgradeBySignal() })
				continue
			}
			d.beginNothing()
			d.upgrading.Lock() // for ever; one that an operator has asked for ends now
			select {
			case next := <-d.succeeded: // it was too late to give up
				lines.leave()
				d.retire(next, signals)
				return nil
			default:
			}
			d.service.tell(d.log, "STOPPING=1")
			drain(d.server, d.log, signals)
			d.stop()
			return nil
		case next := <-d.succeeded:
			lines.leave()
			d.beginNothing()
			d.retire(next, signals)
			return nil
		}
	}
}

// loadConfig reads the file; what is wrong is written to standard error, a line
// each.
func loadConfig(r config.Reader, name string, std streams) (*config.File, error) {
	file, err := r.Load(name)
	if err != nil {
		fmt.Fprintln(std.err, err)
		return nil, exitStatus(exitUsage)
	}
	return file, nil
}

// A daemon is a running spliced run.
type daemon struct {
	path   string
	log    *slog.Logger
	level  *slog.LevelVar
	server *proxy.Server
	admin  *admin // nil: none
	events *events
	quiet  func()   // stops telling of the living connections
	eyes   *metrics // nil: none
	std    streams

	service   notifier
	self      string // the program, as it is found now
	sandboxed bool   // it may not write files any more
	became    bool   // another user has taken the place of the one who has started it

	metricsAddress string // as configured
	started        time.Time

	reloads *reloads
	ending  context.Context // ends when this process is to: nothing new is begun then
	end     func()

	mu       sync.Mutex
	file     *config.File // in force
	loaded   time.Time
	reloaded *adminapi.Reload // the last one; nil: none

	upgrading  sync.Mutex
	again      seldom                 // said that one is under way
	succeeded  chan *proxy.Succession // another process has taken this one's place
	background sync.WaitGroup
	wire       wireHold
}

func newDaemon(path string, file *config.File, passed *passedSockets, std streams, log io.Writer) *daemon {
	d := &daemon{
		path: path, level: new(slog.LevelVar), std: std,
		service: newNotifier(os.LookupEnv), self: program(), succeeded: make(chan *proxy.Succession, 1),
		started: time.Now(), file: file, loaded: time.Now(),
	}
	d.reloads = newReloads(d.bringIntoForce)
	d.ending, d.end = context.WithCancel(context.Background())
	d.level.Set(file.Log.Level)
	options := &slog.HandlerOptions{Level: d.level}
	if file.Log.Format == "json" {
		d.log = slog.New(slog.NewJSONHandler(log, options))
	} else {
		d.log = slog.New(slog.NewTextHandler(log, options))
	}
	events := newEvents(d.log)
	events.daemon = true
	d.events = events
	hooks := events.hooks()
	if file.Log.Start {
		hooks.Accepted = events.onAccepted
	}
	if file.Log.Connect {
		hooks.Joined = events.onJoined
	}
	d.server = &proxy.Server{Config: file.Config, Hooks: hooks, Listen: passed.listen, Wire: file.WirePolicy()}
	return d
}

// start opens everything, gives privileges up, and only then accepts and answers:
// when it takes the place of another process, that one does until then.
func (d *daemon) start(ctx context.Context, file *config.File, before *proxy.Inheritance) error {
	luggage, err := d.unpack(file, before)
	if err != nil {
		return err
	}
	if len(file.Admin.Address) > 0 {
		if d.admin, err = newAdmin(ctx, file, luggage.admin, d); err != nil {
			luggage.close()
			return err
		}
	}
	if file.Metrics != "" {
		if err := d.openMetrics(ctx, file.Metrics, luggage.metrics); err != nil {
			d.stopAdmin()
			return err
		}
	}
	d.server.Inheritance = before
	d.server.BeforeAccept = func() error { return d.harden(file) }
	if err := d.server.Start(ctx); err != nil {
		d.stopAdmin()
		return err
	}
	if before != nil && before.Latest != nil {
		var levels logLevels
		if err := json.Unmarshal(before.Latest, &levels); err == nil { // else a later version has said something else
			d.recallLevel(levels, file)
		}
	}
	if d.admin != nil {
		d.admin.serve(d.log)
	}
	luggage.abandon()
	if n := d.server.Stats().Adopted; n > 0 || file.Instance != "" && before == nil { // else it is told when they have come
		d.log.Info("flows adopted", "instance", file.Instance, "flows", n)
	}
	if d.eyes != nil {
		d.eyes.serve()
		d.log.Info("metrics", "url", "http://"+d.eyes.addr+"/metrics")
	}
	args := []any{"config", d.path, "listeners", len(file.Listeners), "upstreams", len(file.Upstreams), "pid", os.Getpid()}
	if before != nil {
		args = append(args, "predecessor", before.PID, "predecessor_version", before.Predecessor)
	}
	d.log.Info("started", args...)
	d.quiet = d.events.tellEvery(time.Duration(file.Log.Interval), d.server.Connections)
	d.sayAddresses()
	d.background.Go(func() { d.readyWire(file) })
	return nil
}

// beginNothing has nothing new begun, and waits for what was begun in the background.
func (d *daemon) beginNothing() {
	d.end()
	d.background.Wait()
	d.wire.end()
}

// sayAddresses prints where each listener listens, as bound.
func (d *daemon) sayAddresses() {
	for _, l := range d.server.Listeners() {
		for _, a := range l.Addrs {
			fmt.Fprintf(d.std.out, "%s: listening on %s\n", l.Name, listenAddr(a))
		}
	}
}

// bringIntoForce reloads, unless ctx ends before that is done.
func (d *daemon) bringIntoForce(ctx context.Context) error {
	begun := time.Now()
	d.mu.Lock()
	wanted, used := len(d.file.Wants()), usesWire(d.file)
	d.mu.Unlock()
	file, err := (config.Reader{Files: true}).Load(d.path)
	if err != nil {
		return err
	}
	token, err := readToken(&file.Admin, d.log)
	if err != nil {
		return err
	}
	if err := d.server.Reload(ctx, file.Config); err != nil {
		return err
	}
	d.noteReload(file, token, nil)
	if file.WirePolicy() != d.server.Wire {
		d.log.Warn("instance stays as it was until an upgrade or a restart", "instance", d.server.Wire.Instance)
	}
	d.log.Info("reloaded", "config", d.path, "listeners", len(file.Listeners), "upstreams", len(file.Upstreams),
		"duration_ms", float64(time.Since(begun).Microseconds())/1e3)
	d.sayAddresses()
	if wanted == 0 && len(file.Wants()) > 0 || !used && usesWire(file) {
		d.readyWire(file) // it may have given up what is wanted now
	}
	return nil
}

// noteReload remembers how a reload of file has gone, and brings into force what
// is not the server's.
func (d *daemon) noteReload(file *config.File, token string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reloaded = &adminapi.Reload{Time: time.Now(), OK: err == nil}
	if err != nil {
		d.reloaded.Error = err.Error()
		return
	}
	if file.Log.Level != d.file.Log.Level { // else what an operator has said holds
		d.level.Set(file.Log.Level)
	}
	switch {
	case !slices.Equal(file.Admin.Address, d.file.Admin.Address):
		// The addresses stay what they are, and so does what they need.
		d.log.Warn("admin: the addresses and the token change with an upgrade or a restart only", "config", d.path)
		file.Admin = d.file.Admin
	case d.admin != nil:
		d.admin.api.SetToken(token)
	}
	d.file, d.loaded = file, time.Now()
}

func (d *daemon) stop() {
	d.quiet()
	_ = d.server.Close()
	d.events.close()
	d.stopAdmin()
	d.log.Info("ended")
}

func (d *daemon) openMetrics(ctx context.Context, address string, ln net.Listener) error {
	if ln == nil {
		addr, err := proxy.ParseAddr(address)
		if err != nil {
			return err // the configuration was checked
		}
		if ln, err = listenMetrics(ctx, addr); err != nil {
			return err
		}
	}
	d.metricsAddress = address
	d.eyes = newMetrics(ln, d.server, newCollector(d.server, d.events), newRunCollector(d.server))
	return nil
}

func (d *daemon) stopAdmin() {
	if d.eyes != nil {
		d.eyes.stop()
	}
	if d.admin != nil {
		d.admin.stop()
	}
}

type checkCmd struct {
	Config string `arg:"" name:"file" help:"The configuration to check."`
}

// Run checks, with the files that are named, without listening or resolving anything.
func (c *checkCmd) Run(std streams) error {
	file, err := loadConfig(config.Reader{Files: true}, c.Config, std)
	if err != nil {
		return err
	}
	if _, err := lookUp(file.User); err != nil {
		return usageError{fmt.Errorf("%s: %w", c.Config, err)}
	}
	describe(std.out, file)
	return nil
}

type schemaCmd struct{}

// Run prints the JSON Schema of the configuration.
func (c *schemaCmd) Run(std streams) error {
	_, err := std.out.Write(config.Schema())
	return err
}
