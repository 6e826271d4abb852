package report

import (
	"io"
	"strings"
	"time"

	"github.com/spliced-io/spliced/internal/fio/run"
	"github.com/spliced-io/spliced/internal/fio/stat"
)

// An Interval is what happened between two looks: differences, not sums since
// the start.
type Interval struct {
	Begin, End time.Duration // since the jobs started
	Figures    run.Figures   // differences; LatMax is the interval's
	Running    int
	States     string
}

func (v *Interval) object() *object {
	o := &object{}
	o.add("type", "interval")
	o.add("begin_ms", v.Begin.Milliseconds())
	o.add("end_ms", v.End.Milliseconds())
	o.add("running", v.Running)
	o.add("states", v.States)
	seconds := max((v.End - v.Begin).Seconds(), 1e-9)
	for dir := range stat.Directions {
		d := o.object(stat.Name(dir))
		n := v.Figures.IOs[dir]
		d.add("io_bytes", v.Figures.Bytes[dir])
		d.add("ios", n)
		d.add("bw_bytes", uint64(float64(v.Figures.Bytes[dir])/seconds))
		d.add("iops", float64(n)/seconds)
		mean := 0.0
		if n > 0 {
			mean = float64(v.Figures.LatSum[dir]) / float64(n)
		}
		d.add("lat_mean_ns", mean)
		d.add("lat_max_ns", v.Figures.LatMax[dir])
	}
	return o
}

// Line writes the interval as one line of JSON.
func (v *Interval) Line(w io.Writer) error { return oneLine(w, v.object()) }

// Lines writes the whole result as one line of JSON, after the intervals.
func (r *Report) Lines(w io.Writer) error {
	o := &object{}
	o.add("type", "result")
	o.add("fio version", compatible)
	o.add("spliced version", r.Version)
	var jobs []*object
	for i := range r.Results {
		jobs = append(jobs, r.job(&r.Results[i], false))
	}
	o.add("jobs", jobs)
	return oneLine(w, o)
}

func oneLine(w io.Writer, o *object) error {
	var b strings.Builder
	value(&b, o, 0)
	// Strings hold no line feeds in JSON: those that are there are layout.
	var line strings.Builder
	for part := range strings.Lines(b.String()) {
		line.WriteString(strings.TrimSpace(part))
	}
	_, err := io.WriteString(w, line.String()+"\n")
	return err
}
