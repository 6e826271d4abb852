package report

import (
	"fmt"
	"io"
	"time"

	"github.com/spliced-io/spliced/internal/fio/job"
	"github.com/spliced-io/spliced/internal/fio/run"
	"github.com/spliced-io/spliced/internal/fio/stat"
)

// JSON writes one document: fio's, with members of our own for what fio does
// not know ("spliced", "zero_copy", "intervals"). With bins the histograms are
// in it (json+).
func (r *Report) JSON(w io.Writer, bins bool) error {
	doc := &object{}
	doc.add("fio version", compatible)
	doc.add("spliced version", r.Version)
	doc.add("timestamp", r.Time.Unix())
	doc.add("timestamp_ms", r.Time.UnixMilli())
	doc.add("time", r.Time.Format(time.ANSIC))
	if len(r.Global) > 0 {
		settings(doc.object("global options"), r.Global)
	}
	var jobs []*object
	for i := range r.Results {
		jobs = append(jobs, r.job(&r.Results[i], bins))
	}
	doc.add("jobs", jobs)
	if len(r.Disks) > 0 {
		var disks []*object
		for _, d := range r.Disks {
			disks = append(disks, diskObject(d))
		}
		doc.add("disk_util", disks)
	}
	if len(r.Intervals) > 0 {
		var list []*object
		for i := range r.Intervals {
			list = append(list, r.Intervals[i].object())
		}
		doc.add("intervals", list)
	}
	return doc.write(w)
}

func settings(o *object, list []job.Setting) {
	for _, s := range list {
		v := s.Value
		if s.Bare {
			v = "1"
		}
		replaced := false
		for i := range o.members { // twice the same key is no good JSON
			if o.members[i].name == s.Name {
				o.members[i].value, replaced = v, true
			}
		}
		if !replaced {
			o.add(s.Name, v)
		}
	}
}

func (r *Report) job(res *run.Result, bins bool) *object {
	s := res.Stat
	o := &object{}
	o.add("jobname", s.Name)
	o.add("groupid", s.Group)
	if !s.Started.IsZero() {
		o.add("job_start", s.Started.UnixMilli())
	}
	o.add("error", s.Error)
	o.add("eta", 0)
	o.add("elapsed", int64(r.Elapsed.Seconds()+1))
	opts := o.object("job options")
	if res.Options.Name != "" {
		opts.add("name", res.Options.Name)
	}
	settings(opts, res.Options.Given)
	for dir := range s.Dirs {
		name := stat.Name(dir)
		if res.Options.Unified == "mixed" {
			if dir > 0 {
				continue
			}
			name = "mixed"
		}
		direction(o.object(name), res, &s.Dirs[dir], r.aggregate(res, dir), bins)
	}
	sync := o.object("sync")
	sync.add("total_ios", s.SyncIOs)
	latency(sync.object("lat_ns"), &s.SyncLat, res.Options, bins)
	o.add("job_runtime", s.Elapsed.Milliseconds())
	user, system := cpu(s)
	o.add("usr_cpu", user)
	o.add("sys_cpu", system)
	o.add("ctx", s.Switches)
	o.add("majf", s.MajFault)
	o.add("minf", s.MinFault)
	distributions(o, s)
	if s.Continue {
		o.add("total_err", s.ErrorCount)
		o.add("first_error", s.FirstError)
	}
	o.add("latency_depth", s.LatencyDepth)
	o.add("latency_target", s.LatencyTarget.Microseconds())
	o.add("latency_percentile", s.LatencyPercent)
	o.add("latency_window", s.LatencyWindow.Microseconds())
	if s.Description != "" {
		o.add("desc", s.Description)
	}
	if s.Steady != nil {
		steady(o.object("steadystate"), s.Steady)
	}
	if e := res.Evidence; e != nil {
		z := o.object("zero_copy")
		z.add("path", e.Path)
		for _, f := range [][2]string{{"file_pages", e.Shared}, {"user_pages", e.Source}, {"to_user", e.ToUser}, {"note", e.Note}} {
			if f[1] != "" {
				z.add(f[0], f[1])
			}
		}
		if e.PipeSize > 0 {
			z.add("pipe_size", e.PipeSize)
		}
	}
	return o
}

// aggregate is the bandwidth in KiB/s of all jobs of the result's group.
func (r *Report) aggregate(res *run.Result, dir int) float64 {
	var bytes uint64
	var longest time.Duration
	for i := range r.Results {
		if s := r.Results[i].Stat; s.Group == res.Stat.Group {
			bytes += s.Dirs[dir].Bytes
			longest = max(longest, s.Dirs[dir].Runtime)
		}
	}
	return rate(bytes, longest) / 1024
}

// rate is per second; runtimes count in milliseconds as in fio, so that
// whoever divides what is printed gets what is printed.
func rate(n uint64, runtime time.Duration) float64 {
	ms := milliseconds(runtime)
	if ms == 0 {
		return 0
	}
	return float64(n) * 1000 / float64(ms)
}

// milliseconds rounds, and up to 1 where something happened at all.
func milliseconds(d time.Duration) int64 {
	if d > 0 && d < time.Millisecond {
		return 1
	}
	return d.Round(time.Millisecond).Milliseconds()
}

func direction(o *object, res *run.Result, d *stat.Dir, aggregate float64, bins bool) {
	opts := res.Options
	runtime := d.Runtime
	if d.IOs == 0 {
		runtime = 0
	}
	bw := uint64(rate(d.Bytes, runtime))
	o.add("io_bytes", d.Bytes)
	o.add("io_kbytes", d.Bytes>>10)
	o.add("bw_bytes", bw)
	o.add("bw", bw/1024)
	o.add("iops", rate(d.IOs, runtime))
	o.add("runtime", milliseconds(runtime))
	o.add("total_ios", d.IOs)
	o.add("short_ios", d.Short)
	o.add("drop_ios", d.Dropped)
	latency(o.object("slat_ns"), &d.Slat, opts, bins)
	latency(o.object("clat_ns"), &d.Clat, opts, bins)
	latency(o.object("lat_ns"), &d.Lat, opts, bins)
	o.add("bw_min", d.BW.Min)
	o.add("bw_max", d.BW.Max)
	o.add("bw_agg", share(d.BW, aggregate))
	o.add("bw_mean", d.BW.Mean)
	o.add("bw_dev", d.BW.Deviation())
	o.add("bw_samples", d.BW.N)
	o.add("iops_min", d.IOPS.Min)
	o.add("iops_max", d.IOPS.Max)
	o.add("iops_mean", d.IOPS.Mean)
	o.add("iops_stddev", d.IOPS.Deviation())
	o.add("iops_samples", d.IOPS.N)
}

func share(bw stat.Moments, aggregate float64) float64 {
	if bw.N == 0 || aggregate == 0 {
		return 0
	}
	return min(100, bw.Mean*100/aggregate)
}

func latency(o *object, l *stat.Latency, opts *job.Options, bins bool) {
	o.add("min", l.Min)
	o.add("max", l.Max)
	o.add("mean", l.Mean)
	o.add("stddev", l.Deviation())
	o.add("N", l.N)
	if l.Hist == nil || l.N == 0 {
		return
	}
	p := o.object("percentile")
	list := sorted(opts.Percentiles)
	for i, v := range l.Hist.Percentiles(list) {
		p.add(fmt.Sprintf("%f", list[i]), v)
	}
	if !bins {
		return
	}
	b := o.object("bins")
	for i, n := range l.Hist {
		if n > 0 {
			b.add(fmt.Sprint(stat.Middle(i)), n)
		}
	}
}

func cpu(s *stat.Job) (user, system float64) {
	if ms := s.Elapsed.Seconds(); ms > 0 {
		return s.User.Seconds() * 100 / ms, s.System.Seconds() * 100 / ms
	}
	return 0, 0
}

func distributions(o *object, s *stat.Job) {
	var ios uint64
	for _, d := range s.Dirs {
		ios += d.IOs
	}
	put := func(name string, labels []string, counts []uint64, total uint64, least float64) {
		child := o.object(name)
		for i, p := range percents(counts, total, least) {
			child.add(labels[i], p)
		}
	}
	put("iodepth_level", []string{"1", "2", "4", "8", "16", "32", ">=64"}, s.Depth[:], ios, 0.1)
	batches := []string{"0", "4", "8", "16", "32", "64", ">=64"}
	put("iodepth_submit", batches, s.Submit[:], s.Submits, 0.1)
	put("iodepth_complete", batches, s.Complete[:], s.Fetches, 0.1)
	classes := []string{"2", "4", "10", "20", "50", "100", "250", "500", "750", "1000", "2000", ">=2000"}
	put("latency_ns", classes, s.ClassNS[:], ios, 0.01)
	put("latency_us", classes, s.ClassUS[:], ios, 0.01)
	put("latency_ms", classes, s.ClassMS[:], ios, 0.01)
}

// percents of a total; what is not nothing is at least so much.
func percents(counts []uint64, total uint64, least float64) []float64 {
	out := make([]float64, len(counts))
	for i, n := range counts {
		if total > 0 && n > 0 {
			out[i] = min(max(float64(n)*100/float64(total), least), 100)
		}
	}
	return out
}

func diskObject(d run.Disk) *object {
	o := &object{}
	o.add("name", d.Name)
	o.add("read_ios", d.ReadIOs)
	o.add("write_ios", d.WriteIOs)
	o.add("read_sectors", d.ReadSectors)
	o.add("write_sectors", d.WriteSects)
	o.add("read_merges", d.ReadMerges)
	o.add("write_merges", d.WriteMerges)
	o.add("read_ticks", d.ReadTicks)
	o.add("write_ticks", d.WriteTicks)
	o.add("in_queue", d.InQueue)
	o.add("util", d.Util)
	return o
}
