package config

import (
	"log/slog"

	"github.com/spliced-io/spliced/proxy"
)

// A File is everything that can be configured.
type File struct {
	// Include are further files to read, relative to this one; * and ? stand for
	// any characters of a file's name.
	Include []string `yaml:"include"`
	// Log is what is told of it.
	Log Log `yaml:"log"`
	// Admin is where spliced reload and its like are listened to.
	Admin Admin `yaml:"admin"`

	proxy.Config `yaml:",inline"`
}

// Log says what is logged, to standard error.
type Log struct {
	// Level is the least important of what is logged: debug, info, warn or error.
	Level slog.Level `yaml:"level" default:"info"`
	// Format is text or json.
	Format LogFormat `yaml:"format" default:"text"`
}

// Admin is the way to the daemon for its operators.
type Admin struct {
	// Address is a unix socket, unix:/path, that only the daemon's user and root may
	// use. Default: none.
	Address string `yaml:"address,short"`
}

// LogFormat is how log lines are written.
type LogFormat string

// Values lists the formats.
func (LogFormat) Values() []string { return []string{"text", "json"} }
