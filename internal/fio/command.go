package fio

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spliced-io/spliced/internal/fio/job"
)

// Streams are what a command reads and writes. Reports go to Out, and nothing
// else where they are for programs; what a person should know goes to Err.
type Streams struct {
	Out, Err io.Writer
	// Terminal says whether Err is one, for --eta=auto.
	Terminal bool
	Version  string
}

// command is a parsed command line.
type command struct {
	parser *job.Parser
	files  []string

	output     string
	formats    []string
	parseOnly  bool
	showCmd    bool
	readOnly   bool
	bandwidth  bool
	eta        string
	etaEvery   time.Duration
	etaNewline time.Duration
	status     time.Duration
	maxJobs    int
	aux        string
	html       string
	intervals  string
	answer     string // printed instead of running
}

// flagsWithValue are fio's own flags, and ours (html, intervals), that need a
// value.
var flagsWithValue = []string{
	"output", "output-format", "terse-version", "eta", "eta-interval", "eta-newline", "status-interval",
	"section", "max-jobs", "aux-path", "alloc-size", "cmdhelp", "enghelp", "html", "intervals",
}

// refused are flags that fio has and this program does not.
var refused = []string{
	"debug", "merge-blktrace-only", "append-terse", "server", "server-internal", "daemonize", "client",
	"remote-config", "cpuclock-test", "crctest", "memcpytest", "idle-prof", "inflate-log", "trigger-file",
	"trigger-timeout", "trigger", "trigger-remote", "profile", "latency-log",
}

func parseCommand(args []string) (*command, error) {
	c := &command{parser: job.NewParser(), formats: []string{"normal"}, eta: "auto", etaEvery: time.Second, maxJobs: 4096}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		word, dashed := strings.CutPrefix(arg, "-")
		if !dashed || arg == "-" {
			c.files = append(c.files, arg)
			continue
		}
		word = strings.TrimPrefix(word, "-")
		if word == "" { // "--": the rest are job files
			c.files = append(c.files, args...)
			break
		}
		name, value, has := strings.Cut(word, "=")
		rest, err := c.word(name, value, has, args)
		if err != nil {
			return nil, err
		}
		args = rest
	}
	for _, f := range c.files {
		if err := c.parser.File(f); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// word handles one option and returns the arguments after it.
func (c *command) word(name, value string, has bool, rest []string) ([]string, error) {
	takeNext := func() bool {
		if has || len(rest) == 0 {
			return has
		}
		value, rest, has = rest[0], rest[1:], true
		return true
	}
	if slices.Contains(refused, name) {
		return nil, fmt.Errorf("option --%s: fio has this option, spliced fio does not", name)
	}
	if slices.Contains(flagsWithValue, name) {
		optional := name == "cmdhelp" || name == "enghelp"
		if !takeNext() && !optional {
			return nil, fmt.Errorf("option --%s needs a value", name)
		}
		return rest, c.flag(name, value)
	}
	switch name {
	case "help", "h":
		c.answer = usage()
	case "version", "v":
		c.answer = "version"
	case "minimal":
		c.formats = []string{"terse"}
	case "parse-only":
		c.parseOnly = true
	case "showcmd":
		c.showCmd = true
	case "readonly":
		c.readOnly = true
	case "bandwidth-log":
		c.bandwidth = true
	case "warnings-fatal":
		// Every warning of this parser is an error already.
	case "name":
		if !takeNext() {
			return nil, errors.New("option --name needs a value")
		}
		return rest, c.parser.Begin(value)
	default:
		bare := c.parser.TakesBare(name)
		switch {
		case has:
		case bare:
			if len(rest) > 0 && (rest[0] == "0" || rest[0] == "1") {
				takeNext()
			}
		default:
			takeNext()
		}
		return rest, c.parser.Add(job.Setting{Name: name, Value: value, Bare: !has})
	}
	return rest, nil
}

func (c *command) flag(name, value string) (err error) {
	period := func(to *time.Duration) {
		d, e := time.ParseDuration(value)
		if e != nil {
			var n float64
			n, e = strconv.ParseFloat(value, 64)
			d = time.Duration(n * float64(time.Second))
		}
		if e != nil || d < 0 || d > 365*24*time.Hour {
			err = fmt.Errorf("option --%s=%s: no time", name, value)
			return
		}
		*to = d
	}
	switch name {
	case "output":
		c.output = value
	case "output-format":
		c.formats = nil
		for f := range strings.SplitSeq(value, ",") {
			switch f {
			case "normal", "json", "json+", "terse", "ndjson":
				c.formats = append(c.formats, f)
			case "minimal":
				c.formats = append(c.formats, "terse")
			default:
				return fmt.Errorf("option --output-format=%s: %q is none of normal, terse, json, json+, ndjson", value, f)
			}
		}
	case "terse-version":
		if value != "3" {
			return fmt.Errorf("option --terse-version=%s: spliced fio writes version 3", value)
		}
	case "eta":
		if !slices.Contains([]string{"always", "never", "auto"}, value) {
			return fmt.Errorf("option --eta=%s: none of always, never, auto", value)
		}
		c.eta = value
	case "eta-interval":
		period(&c.etaEvery)
	case "eta-newline":
		period(&c.etaNewline)
	case "status-interval":
		period(&c.status)
	case "section":
		c.parser.Only(value)
	case "max-jobs":
		if c.maxJobs, err = strconv.Atoi(value); err != nil || c.maxJobs < 1 {
			return fmt.Errorf("option --max-jobs=%s: no number of jobs", value)
		}
	case "aux-path":
		c.aux = value
	case "alloc-size":
		// fio's shared memory pool: there is none here.
	case "html":
		c.html = value
	case "intervals":
		c.intervals = value
	case "cmdhelp":
		if value == "" {
			value = "all"
		}
		text, ok := job.Help(value)
		if !ok {
			return fmt.Errorf("option --cmdhelp=%s: no such option", value)
		}
		c.answer = text
	case "enghelp":
		c.answer = "enghelp " + value
	}
	return err
}

func usage() string {
	return `usage: spliced fio [flags] [job options] [job files]

  --name=JOB              begin a job; "global" for options of all later jobs
  --OPTION[=VALUE]        a job option (see --cmdhelp)
  --section=NAME          only this section of the job files (may repeat)
  --parse-only            check the jobs, run nothing
  --showcmd               print the jobs as a command line
  --readonly              refuse jobs that write or trim
  --output=FILE           write the report there
  --output-format=LIST    normal, terse, json, json+, ndjson
  --minimal               the same as --output-format=terse
  --html=FILE             write a page with charts too
  --status-interval=TIME  report each interval (json: in "intervals", ndjson: a line)
  --intervals=FILE        write a line of JSON for each interval there
  --bandwidth-log         write agg-read_bw.log and its like
  --eta=WHEN              progress on standard error: always, never, auto
  --eta-interval=TIME, --eta-newline=TIME
  --aux-path=DIR          where logs and dumps go
  --max-jobs=N            refuse more jobs than this
  --cmdhelp[=OPTION], --enghelp[=ENGINE], --version, --help

The exit code is 0, or how many jobs failed, 1 for a wrong job, 128 after a
signal.
`
}
