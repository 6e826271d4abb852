package config

import (
	"log/slog"
	"slices"

	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/splice"
)

// A File is everything that can be configured.
type File struct {
	// Include are further files to read, relative to this one; * and ? stand for
	// any characters of a file's name.
	Include []string `yaml:"include"`
	// Log is what is told of it.
	Log Log `yaml:"log"`
	// Admin is where operators ask: spliced ctl, top, reload and upgrade, and programs.
	Admin Admin `yaml:"admin"`
	// User is whom to become once the sockets are open, by name or number, with its
	// group alone. It must be able to read this file and those of certificates.
	// Default: the one who starts it. Capabilities that the configuration does not
	// need are dropped in any case; with a user that is not the one who starts it
	// those too that the engine auto has a use for, so that it hands nothing over to
	// wire. Who names a user wants a process that can do no harm, and with CAP_BPF and
	// CAP_PERFMON it could read the memory of the kernel. engine: wire in a listener
	// says that they are wanted, and keeps them through the change.
	User string `yaml:"user"`
	// NoSandbox lets the process write files. Else it may write below the directories
	// of its own unix sockets only, where the kernel has landlock(7).
	NoSandbox bool `yaml:"no_sandbox"`
	// Instance is a name under which connections that the engine wire carries outlive
	// the process: the next one of that name adopts them, with their counters and
	// limits. It needs root, or the capabilities of wire without a change of user. A
	// change takes an upgrade or a restart. Default: they end with the process.
	Instance string `yaml:"instance"`
	// InstanceRoot is the directory of instances, in a BPF file system. Default:
	// /sys/fs/bpf/spliced.
	InstanceRoot string `yaml:"instance_root"`
	// Metrics is where /metrics and /healthz are served to whoever can reach it,
	// host:port or :port. Default: nowhere.
	Metrics string `yaml:"metrics"`

	proxy.Config `yaml:",inline"`

	// Sources are the files that this was read from, in their order.
	Sources []Source
}

// WirePolicy says that connections are handed over to the engine wire of the process's own
// accord, and what becomes of them when it ends.
func (f *File) WirePolicy() splice.WirePolicy {
	return splice.WirePolicy{Upgrade: true, Instance: f.Instance, Root: f.InstanceRoot}
}

// Needs adds to those of the configuration the capabilities for the connections of an
// instance.
func (f *File) Needs(unprivilegedFrom int) []proxy.Need {
	needs := f.Config.Needs(unprivilegedFrom)
	if f.Instance == "" {
		return needs
	}
	for _, capability := range splice.WireCapabilities() {
		if !slices.ContainsFunc(needs, func(n proxy.Need) bool { return n.Capability == capability }) {
			needs = append(needs, proxy.Need{Capability: capability, For: "for the engine wire of instance " + f.Instance})
		}
	}
	return needs
}

// Log says what is logged, to standard error.
type Log struct {
	// Level is the least important of what is logged: debug, info, warn or error.
	Level slog.Level `yaml:"level" default:"info"`
	// Format is text or json.
	Format LogFormat `yaml:"format" default:"text"`
	// Start has a line for each client as it is accepted. As all of these but level it
	// is read at the start only.
	Start bool `yaml:"start"`
	// Connect has a line for each client when it is joined with its server.
	Connect bool `yaml:"connect"`
	// Interval is how often there is a line for each connection that lives, with what
	// it has carried so far.
	Interval proxy.Timeout `yaml:"interval" default:"never"`
}

// Admin is the way to the daemon for its operators.
type Admin struct {
	// Address is where to listen, one or several: a unix socket, unix:/path, that only
	// the daemon's user and root may use, or host:port for a browser. Default: none.
	Address []string `yaml:"address,short"`
	// TokenFile is a file with a word, of 16 characters or more, that whoever asks must
	// know: Authorization: Bearer WORD. It is read again with each reload. Any address
	// but a unix socket, 127.0.0.1, [::1] and localhost must have one. Default: nobody
	// has to know anything.
	TokenFile string `yaml:"token_file"`
}

// A Source is a file that was read, and the SHA-256 of its content by then.
type Source struct {
	Path   string
	SHA256 [32]byte
}

// LogFormat is how log lines are written.
type LogFormat string

// Values lists the formats.
func (LogFormat) Values() []string { return []string{"text", "json"} }
