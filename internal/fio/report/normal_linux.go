package report

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/spliced-io/spliced/internal/fio/run"
	"github.com/spliced-io/spliced/internal/fio/stat"
)

// Normal writes fio's text for people.
func (r *Report) Normal(w io.Writer) error {
	var b strings.Builder
	last := -1
	for i := range r.Results {
		res := &r.Results[i]
		r.normal(&b, res)
		last = max(last, res.Stat.Group)
	}
	for g := range last + 1 {
		r.group(&b, g)
	}
	if len(r.Disks) > 0 {
		b.WriteString("\nDisk stats (read/write):\n")
		for _, d := range r.Disks {
			fmt.Fprintf(&b, "  %s: ios=%d/%d, merge=%d/%d, ticks=%d/%d, in_queue=%d, util=%3.2f%%\n", d.Name,
				d.ReadIOs, d.WriteIOs, d.ReadMerges, d.WriteMerges, d.ReadTicks, d.WriteTicks, d.InQueue, d.Util)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) normal(b *strings.Builder, res *run.Result) {
	s := res.Stat
	cause := ""
	if s.Error != 0 {
		cause = " (" + s.Cause + ")"
	}
	fmt.Fprintf(b, "\n%s: (groupid=%d, jobs=%d): err=%2d%s: pid=%d: %s\n", s.Name, s.Group, s.Members, s.Error, cause,
		s.PID, r.Time.Format(time.ANSIC))
	if s.Description != "" {
		fmt.Fprintf(b, "  Description  : [%s]\n", s.Description)
	}
	for dir := range s.Dirs {
		if s.Dirs[dir].Bytes > 0 {
			r.normalDir(b, res, dir)
		}
	}
	r.classes(b, s)
	if s.SyncLat.N > 0 {
		b.WriteString("  fsync/fdatasync/sync_file_range:\n")
		moments(b, "sync", &s.SyncLat)
		r.percentiles(b, "sync", &s.SyncLat, res)
	}
	user, system := cpu(s)
	fmt.Fprintf(b, "  cpu          : usr=%3.2f%%, sys=%3.2f%%, ctx=%d, majf=%d, minf=%d\n", user, system,
		s.Switches, s.MajFault, s.MinFault)
	var ios uint64
	for _, d := range s.Dirs {
		ios += d.IOs
	}
	line := func(title string, labels []string, list []float64) {
		parts := make([]string, len(list))
		for i, p := range list {
			parts[i] = fmt.Sprintf("%s=%3.1f%%", labels[i], p)
		}
		b.WriteString(title + strings.Join(parts, ", ") + "\n")
	}
	batches := []string{"0", "4", "8", "16", "32", "64", ">=64"}
	line("  IO depths    : ", []string{"1", "2", "4", "8", "16", "32", ">=64"}, percents(s.Depth[:], ios, 0.1))
	line("     submit    : ", batches, percents(s.Submit[:], s.Submits, 0.1))
	line("     complete  : ", batches, percents(s.Complete[:], s.Fetches, 0.1))
	d := &s.Dirs
	fmt.Fprintf(b, "     issued rwts: total=%d,%d,%d,%d short=%d,%d,%d,0 dropped=%d,%d,%d,0\n",
		d[0].IOs, d[1].IOs, d[2].IOs, s.SyncIOs, d[0].Short, d[1].Short, d[2].Short, d[0].Dropped, d[1].Dropped, d[2].Dropped)
	if s.Continue {
		fmt.Fprintf(b, "     errors    : total=%d, first_error=%d\n", s.ErrorCount, s.FirstError)
	}
	fmt.Fprintf(b, "     latency   : target=%d, window=%d, percentile=%.2f%%, depth=%d\n",
		s.LatencyTarget.Microseconds(), s.LatencyWindow.Microseconds(), s.LatencyPercent, s.LatencyDepth)
	if s.Steady != nil {
		normalSteady(b, s.Steady)
	}
	r.evidence(b, res)
}

func (r *Report) evidence(b *strings.Builder, res *run.Result) {
	e := res.Evidence
	if e == nil {
		return
	}
	fmt.Fprintf(b, "  zero-copy    : %s\n", e.Path)
	for _, f := range [][2]string{{"file pages", e.Shared}, {"user pages", e.Source}, {"to user", e.ToUser}, {"note", e.Note}} {
		if f[1] != "" {
			fmt.Fprintf(b, "     %-10s: %s\n", f[0], f[1])
		}
	}
	if e.PipeSize > 0 {
		fmt.Fprintf(b, "     %-10s: %d bytes\n", "pipe", e.PipeSize)
	}
}

func (r *Report) rates(res *run.Result, bytesPerSecond uint64) (string, string) {
	unit := "B/s"
	n := bytesPerSecond
	if res.Options.UnitBase == 1 || res.Options.UnitBase == 0 && res.Bits {
		unit, n = "bit/s", n*8
	}
	binary := res.Options.KBBase == 1024
	figs := res.Options.SigFigs
	return amount(n, figs, binary, unit), amount(n, figs, !binary, unit)
}

func (r *Report) normalDir(b *strings.Builder, res *run.Result, dir int) {
	d := &res.Stat.Dirs[dir]
	o := res.Options
	name := stat.Name(dir)
	if o.Unified == "mixed" {
		name = "mixed"
	}
	bw, alt := r.rates(res, uint64(rate(d.Bytes, d.Runtime)))
	zones := ""
	if dir == stat.Write {
		zones = "; 0 zone resets"
	}
	fmt.Fprintf(b, "  %s: IOPS=%s, BW=%s (%s)(%s/%dmsec)%s\n", name, amount(uint64(rate(d.IOs, d.Runtime)), o.SigFigs, false, ""),
		bw, alt, amount(d.Bytes, o.SigFigs, o.KBBase == 1024, "B"), milliseconds(d.Runtime), zones)
	moments(b, "slat", &d.Slat)
	moments(b, "clat", &d.Clat)
	moments(b, " lat", &d.Lat)
	r.percentiles(b, "slat", &d.Slat, res)
	r.percentiles(b, "clat", &d.Clat, res)
	r.percentiles(b, "lat", &d.Lat, res)
	if d.BW.N > 0 {
		unit, div := "KiB/s", 1.0
		if d.BW.Mean > 1<<20 {
			unit, div = "MiB/s", 1024
		}
		fmt.Fprintf(b, "   bw (%7s): min=%5.0f, max=%5.0f, per=%3.2f%%, avg=%5.2f, stdev=%5.2f, samples=%d\n", unit,
			float64(d.BW.Min)/div, float64(d.BW.Max)/div, share(d.BW, r.aggregate(res, dir)), d.BW.Mean/div, d.BW.Deviation()/div, d.BW.N)
	}
	if d.IOPS.N > 0 {
		fmt.Fprintf(b, "   iops        : min=%5d, max=%5d, avg=%5.2f, stdev=%5.2f, samples=%d\n",
			d.IOPS.Min, d.IOPS.Max, d.IOPS.Mean, d.IOPS.Deviation(), d.IOPS.N)
	}
}

// unitFor chooses ns, us or ms as fio does: by the least, which must not become 0.
func unitFor(least, most, mean, dev float64) (string, float64) {
	switch {
	case least > 2000_000 && most > 99_999_000 && dev > 1000_000:
		return "msec", 1e6
	case least > 2000 && most > 99_999 && dev > 1000:
		return "usec", 1e3
	}
	return "nsec", 1
}

func moments(b *strings.Builder, name string, l *stat.Latency) {
	if l.N == 0 {
		return
	}
	unit, div := unitFor(float64(l.Min), float64(l.Max), l.Mean, l.Deviation())
	whole := func(v uint64) string {
		n := uint64(float64(v) / div)
		if n > 999_999 { // fio has room for 6 characters
			return amount(n, 5, false, "")
		}
		return fmt.Sprint(n)
	}
	fmt.Fprintf(b, "    %s (%s): min=%s, max=%s, avg=%5.2f, stdev=%5.2f\n", name, unit, whole(l.Min), whole(l.Max),
		l.Mean/div, l.Deviation()/div)
}

func (r *Report) percentiles(b *strings.Builder, name string, l *stat.Latency, res *run.Result) {
	if l.Hist == nil || l.N == 0 {
		return
	}
	list := sorted(res.Options.Percentiles)
	values := l.Hist.Percentiles(list)
	unit, div := "nsec", 1.0
	least, most := values[0], values[len(values)-1]
	switch {
	case least > 2000_000 && most > 99_999_000:
		unit, div = "msec", 1e6
	case least > 2000 && most > 99_999:
		unit, div = "usec", 1e3
	}
	fmt.Fprintf(b, "    %s percentiles (%s):\n     |", name, unit)
	width := max(5, int(math.Log10(max(float64(most)/div, 1)))+1)
	for i, p := range list {
		if i > 0 && i%4 == 0 {
			b.WriteString("     |")
		}
		sep := ","
		if i+1 == len(list) {
			sep = ""
		}
		fmt.Fprintf(b, " %5.2fth=[%*d]%s", p, width, uint64(float64(values[i])/div+0.5), sep)
		if i%4 == 3 || i+1 == len(list) {
			b.WriteString("\n")
		}
	}
}

func (r *Report) classes(b *strings.Builder, s *stat.Job) {
	var ios uint64
	for _, d := range s.Dirs {
		ios += d.IOs
	}
	names := []string{"2", "4", "10", "20", "50", "100", "250", "500", "750", "1000", "2000", ">=2000"}
	for _, row := range []struct {
		unit   string
		counts []uint64
	}{{"nsec", s.ClassNS[:]}, {"usec", s.ClassUS[:]}, {"msec", s.ClassMS[:]}} {
		n := 0
		for i, p := range percents(row.counts, ios, 0.01) {
			if p == 0 {
				continue
			}
			switch {
			case n%5 == 0 && n > 0:
				fmt.Fprintf(b, "\n  lat (%s)   : ", row.unit)
			case n == 0:
				fmt.Fprintf(b, "  lat (%s)   : ", row.unit)
			default:
				b.WriteString(", ")
			}
			fmt.Fprintf(b, "%s=%3.2f%%", names[i], p)
			n++
		}
		if n > 0 {
			b.WriteString("\n")
		}
	}
}

// group writes what a group of jobs did together.
func (r *Report) group(b *strings.Builder, g int) {
	fmt.Fprintf(b, "\nRun status group %d (all jobs):\n", g)
	for dir, title := range []string{"   READ", "  WRITE", "   TRIM"} {
		var members []*run.Result
		var bytes uint64
		var shortest, longest time.Duration
		for i := range r.Results {
			res := &r.Results[i]
			d := &res.Stat.Dirs[dir]
			if res.Stat.Group != g || d.IOs == 0 {
				continue
			}
			if len(members) == 0 || d.Runtime < shortest {
				shortest = d.Runtime
			}
			longest = max(longest, d.Runtime)
			bytes += d.Bytes
			members = append(members, res)
		}
		if len(members) == 0 {
			continue
		}
		least, most := uint64(math.MaxUint64), uint64(0)
		for _, res := range members {
			d := &res.Stat.Dirs[dir]
			bw := uint64(rate(d.Bytes, d.Runtime))
			least, most = min(least, bw), max(most, bw)
		}
		res := members[0]
		if res.Options.Unified == "mixed" {
			title = "  MIXED"
		}
		all, allAlt := r.rates(res, uint64(rate(bytes, longest)))
		low, lowAlt := r.rates(res, least)
		high, highAlt := r.rates(res, most)
		binary, figs := res.Options.KBBase == 1024, res.Options.SigFigs
		fmt.Fprintf(b, "%s: bw=%s (%s), %s-%s (%s-%s), io=%s (%s), run=%d-%dmsec\n", title, all, allAlt, low, high,
			lowAlt, highAlt, amount(bytes, figs, binary, "B"), amount(bytes, figs, !binary, "B"),
			milliseconds(shortest), milliseconds(longest))
	}
}
