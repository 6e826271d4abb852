package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spliced-io/spliced/internal/fio/run"
	"github.com/spliced-io/spliced/internal/fio/stat"
)

// Terse writes a line a job, version 3 of fio's terse format.
func (r *Report) Terse(w io.Writer) error {
	for i := range r.Results {
		if _, err := io.WriteString(w, r.terse(&r.Results[i])+"\n"); err != nil {
			return err
		}
	}
	return nil
}

func (r *Report) terse(res *run.Result) string {
	s := res.Stat
	var b strings.Builder
	add := func(format string, args ...any) { fmt.Fprintf(&b, ";"+format, args...) }
	fmt.Fprintf(&b, "3;%s;%s;%d;%d", compatible, s.Name, s.Group, s.Error)
	for dir := range stat.Trim {
		r.terseDir(add, res, dir)
	}
	user, system := cpu(s)
	add("%f%%;%f%%;%d;%d;%d", user, system, s.Switches, s.MajFault, s.MinFault)
	var ios uint64
	for _, d := range s.Dirs {
		ios += d.IOs
	}
	for _, p := range percents(s.Depth[:], ios, 0.1) {
		add("%3.1f%%", p)
	}
	us := s.ClassUS
	for _, n := range s.ClassNS { // terse has no nanoseconds
		us[0] += n
	}
	for _, p := range append(percents(us[:], ios, 0.01), percents(s.ClassMS[:], ios, 0.01)...) {
		add("%3.2f%%", p)
	}
	for _, d := range r.Disks {
		add("%s;%d;%d;%d;%d;%d;%d;%d;%.2f%%", d.Name, d.ReadIOs, d.WriteIOs, d.ReadMerges, d.WriteMerges,
			d.ReadTicks, d.WriteTicks, d.InQueue, d.Util)
	}
	if s.Continue {
		add("%d;%d", s.ErrorCount, s.FirstError)
	}
	if s.Description != "" {
		add("%s", s.Description)
	}
	return b.String()
}

func (r *Report) terseDir(add func(string, ...any), res *run.Result, dir int) {
	d := &res.Stat.Dirs[dir]
	runtime := d.Runtime
	if d.IOs == 0 {
		runtime = 0
	}
	add("%d;%d;%d;%d", d.Bytes>>10, uint64(rate(d.Bytes, runtime))/1024, uint64(rate(d.IOs, runtime)), milliseconds(runtime))
	moments := func(m stat.Moments) {
		add("%d;%d;%f;%f", m.Min/1000, m.Max/1000, m.Mean/1000, m.Deviation()/1000)
	}
	moments(d.Slat.Moments)
	moments(d.Clat.Moments)
	hist := d.Clat.Hist
	if res.Options.LatPercentiles {
		hist = d.Lat.Hist
	}
	list := sorted(res.Options.Percentiles)
	const columns = 20
	var values []uint64
	if hist != nil && d.IOs > 0 {
		values = hist.Percentiles(list)
	}
	for i := range columns {
		if i < len(values) {
			add("%f%%=%d", list[i], values[i]/1000)
		} else {
			add("0%%=0")
		}
	}
	moments(d.Lat.Moments)
	add("%d;%d;%f%%;%f;%f", d.BW.Min, d.BW.Max, share(d.BW, r.aggregate(res, dir)), d.BW.Mean, d.BW.Deviation())
}

func sorted(list []float64) []float64 {
	c := slices.Clone(list)
	slices.Sort(c)
	return c
}
