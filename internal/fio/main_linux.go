package fio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spliced-io/spliced/internal/fio/ioengine"
	"github.com/spliced-io/spliced/internal/fio/job"
	"github.com/spliced-io/spliced/internal/fio/report"
	"github.com/spliced-io/spliced/internal/fio/run"
)

const exitSignal = 128

// Main runs the command and returns its exit code, which is fio's. When ctx is
// canceled the jobs end soon and what they did is reported.
func Main(ctx context.Context, args []string, std Streams) int {
	c, err := parseCommand(args)
	if err == nil && c.answer != "" {
		err = c.reply(std)
		if err == nil {
			return 0
		}
	}
	if err == nil {
		var code int
		if code, err = c.main(ctx, std); err == nil {
			return code
		}
	}
	fmt.Fprintf(std.Err, "spliced fio: %v\n", err)
	return 1
}

func (c *command) reply(std Streams) error {
	switch name, isEngine := strings.CutPrefix(c.answer, "enghelp "); {
	case isEngine && name == "":
		fmt.Fprintf(std.Out, "Available IO engines:\n\t%s\n", strings.Join(ioengine.Names(), "\n\t"))
	case isEngine:
		text, ok := ioengine.Help(name)
		if !ok {
			return fmt.Errorf("option --enghelp=%s: spliced fio has %s", name, strings.Join(ioengine.Names(), ", "))
		}
		fmt.Fprint(std.Out, text)
	case c.answer == "version":
		fmt.Fprintf(std.Out, "spliced fio %s (compatible with fio-3.33)\n", std.Version)
	default:
		fmt.Fprint(std.Out, c.answer)
	}
	return nil
}

func (c *command) main(ctx context.Context, std Streams) (int, error) {
	set, err := c.parser.Set()
	if err != nil {
		return 1, err
	}
	if len(set.Jobs) == 0 {
		return 1, errors.New("no job defined (see: spliced fio --help)")
	}
	if c.showCmd {
		fmt.Fprintln(std.Out, set.Command())
		return 0, nil
	}
	if err := c.allowed(set); err != nil {
		return 1, err
	}
	say := func(line string) { fmt.Fprintf(std.Err, "spliced fio: %s\n", line) }
	conf := run.Config{Say: say, AuxPath: c.aux, BandwidthLog: c.bandwidth}
	out := std.Out
	var file *os.File
	if c.output != "" && !c.parseOnly {
		if file, err = os.Create(c.output); err != nil {
			return 1, fmt.Errorf("option --output: %w", err)
		}
		defer file.Close()
		out = file
	}
	var page *os.File
	if c.html != "" && !c.parseOnly {
		if page, err = os.Create(c.html); err != nil {
			return 1, fmt.Errorf("option --html: %w", err)
		}
		defer page.Close()
	}
	if slices.Contains(c.formats, "normal") {
		conf.Info = func(line string) { fmt.Fprintln(out, line) }
	}
	r, err := run.New(set, conf)
	if err != nil {
		return 1, err
	}
	if r.Workers() > c.maxJobs {
		return 1, fmt.Errorf("%d jobs are more than --max-jobs=%d", r.Workers(), c.maxJobs)
	}
	if conf.Info != nil {
		head(out, set, r.Workers(), std.Version)
	}
	if c.parseOnly {
		return 0, nil
	}
	code, err := c.execute(ctx, std, set, r, out, page)
	if file != nil && err == nil {
		err = file.Close()
	}
	return code, err
}

func (c *command) allowed(set *job.Set) error {
	for i := range set.Jobs {
		o := &set.Jobs[i]
		if c.readOnly && (o.Writes() || o.Trims()) {
			return fmt.Errorf("job %q writes or trims, but --readonly is given", o.Name)
		}
	}
	return nil
}

// head names the jobs as fio does.
func head(w io.Writer, set *job.Set, workers int, version string) {
	for i := range set.Jobs {
		o := &set.Jobs[i]
		group := 0
		for j := 1; j <= i; j++ {
			if set.Jobs[j].Stonewall || set.Jobs[j].NewGroup {
				group++
			}
		}
		bs := func(d int) string { return fmt.Sprintf("%dB-%dB", o.BS[d].Min, o.BS[d].Max) }
		rw := o.RW
		if rw == "readwrite" {
			rw = "rw"
		}
		fmt.Fprintf(w, "%s: (g=%d): rw=%s, bs=(R) %s, (W) %s, (T) %s, ioengine=%s, iodepth=%d\n", o.Name, group, rw,
			bs(job.Read), bs(job.Write), bs(job.Trim), o.Engine, o.IODepth)
		if o.NumJobs > 1 {
			fmt.Fprintln(w, "...")
		}
	}
	plural := ""
	if workers > 1 {
		plural = "s"
	}
	fmt.Fprintf(w, "spliced fio %s\nStarting %d thread%s\n", version, workers, plural)
}

func (c *command) execute(ctx context.Context, std Streams, set *job.Set, r *run.Run, out io.Writer, page *os.File) (int, error) {
	began := time.Now()
	w, err := c.watch(std, r, out)
	if err != nil {
		return 1, err
	}
	r.Do(ctx)
	if err := w.end(); err != nil {
		return 1, err
	}
	rep := &report.Report{
		Version: std.Version, Time: time.Now(), Elapsed: time.Since(began), Global: set.Global,
		Results: r.Results(), Disks: r.Disks(), Intervals: w.list,
	}
	for _, f := range c.formats {
		if err := c.write(rep, f, out); err != nil {
			return 1, fmt.Errorf("write the report: %w", err)
		}
	}
	if page != nil {
		if err := errors.Join(rep.HTML(page), page.Close()); err != nil {
			return 1, fmt.Errorf("option --html: %w", err)
		}
	}
	code := r.ExitCode()
	if ctx.Err() != nil {
		code = exitSignal
	}
	return code, nil
}

func (c *command) write(rep *report.Report, format string, out io.Writer) error {
	withIntervals := *rep
	if c.status == 0 {
		withIntervals.Intervals = nil
	}
	switch format {
	case "json":
		return withIntervals.JSON(out, false)
	case "json+":
		return withIntervals.JSON(out, true)
	case "terse":
		return rep.Terse(out)
	case "ndjson":
		return rep.Lines(out)
	}
	return rep.Normal(out)
}
