package netbench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
)

// A FioFile is what fio(1) or "spliced fio" wrote with --output-format=json,
// json+ or, the latter only, ndjson.
type FioFile struct {
	version string
	jobs    []fioJob
}

// fioJob has the keys of fio's JSON that are compared.
type fioJob struct {
	Name    string        `json:"jobname"`
	Group   int           `json:"groupid"`
	Error   int           `json:"error"`
	Runtime float64       `json:"job_runtime"` // ms
	User    float64       `json:"usr_cpu"`     // percent of the runtime
	System  float64       `json:"sys_cpu"`
	Read    *fioDirection `json:"read"`
	Write   *fioDirection `json:"write"`
	Trim    *fioDirection `json:"trim"`
	Mixed   *fioDirection `json:"mixed"`
}

type fioDirection struct {
	IOs         float64    `json:"total_ios"`
	Bytes       float64    `json:"bw_bytes"` // per second
	BWMin       float64    `json:"bw_min"`   // KiB per second
	BWMax       float64    `json:"bw_max"`
	BWSamples   float64    `json:"bw_samples"`
	IOPS        float64    `json:"iops"`
	IOPSMin     float64    `json:"iops_min"`
	IOPSMax     float64    `json:"iops_max"`
	IOPSSamples float64    `json:"iops_samples"`
	Completion  fioLatency `json:"clat_ns"`
	Whole       fioLatency `json:"lat_ns"`
}

type fioLatency struct {
	N           float64            `json:"N"`
	Mean        float64            `json:"mean"`
	Percentiles map[string]float64 `json:"percentile"`
}

// errNotFio: the file is not fio's JSON, whatever else it is.
var errNotFio = errors.New("not the JSON of fio")

// decodeFio reads a result of fio. fio prints notes before its JSON and with
// --status-interval several documents behind each other: the last one that has
// jobs counts.
func decodeFio(data []byte) (*FioFile, error) {
	if at := bytes.Index(data, []byte("\n{")); at >= 0 && data[0] != '{' {
		data = data[at+1:]
	}
	var found *FioFile
	for in := json.NewDecoder(bytes.NewReader(data)); ; {
		var doc struct {
			Version *string  `json:"fio version"`
			Jobs    []fioJob `json:"jobs"`
		}
		if err := in.Decode(&doc); err != nil {
			if found == nil || !errors.Is(err, io.EOF) {
				return nil, fmt.Errorf("%w: %w", errNotFio, err)
			}
			break
		}
		if doc.Version != nil && len(doc.Jobs) > 0 {
			found = &FioFile{version: *doc.Version, jobs: doc.Jobs}
		}
	}
	return found, found.check()
}

// check refuses what no run can have written.
func (f *FioFile) check() error {
	for i := range f.jobs {
		j := &f.jobs[i]
		for _, d := range []*fioDirection{j.Read, j.Write, j.Trim, j.Mixed} {
			if d == nil {
				continue
			}
			for _, v := range []float64{d.IOs, d.Bytes, d.IOPS, d.BWMin, d.BWMax, d.IOPSMin, d.IOPSMax, j.Runtime, j.User, j.System} {
				if v < 0 {
					return fmt.Errorf("job %q: a figure is negative", j.Name)
				}
			}
		}
	}
	return nil
}

// A fioRow is one direction of one job.
type fioRow struct {
	job *fioJob
	dir *fioDirection
}

type fioKey struct {
	name, direction string
	nth             int // of the jobs with this name, as numjobs makes them
}

func (k fioKey) String() string {
	s := printable(k.name)
	if k.nth > 0 {
		s += " #" + strconv.Itoa(k.nth+1)
	}
	return s
}

// rows returns all directions with I/O, in the order of the file.
func (f *FioFile) rows() (order []fioKey, rows map[fioKey]fioRow) {
	rows = map[fioKey]fioRow{}
	seen := map[string]int{}
	for i := range f.jobs {
		j := &f.jobs[i]
		nth := seen[j.Name]
		seen[j.Name]++
		for _, d := range []struct {
			name string
			dir  *fioDirection
		}{{"read", j.Read}, {"write", j.Write}, {"trim", j.Trim}, {"mixed", j.Mixed}} {
			if d.dir == nil || d.dir.IOs == 0 {
				continue
			}
			k := fioKey{j.Name, d.name, nth}
			order = append(order, k)
			rows[k] = fioRow{j, d.dir}
		}
	}
	return order, rows
}

// fioFigures are what is compared: the columns, and how to get their figures.
func fioFigures() []struct {
	column
	figure func(fioRow) *Figure
} {
	percentile := func(name string) func(fioRow) *Figure {
		return func(r fioRow) *Figure {
			for _, l := range []fioLatency{r.dir.Completion, r.dir.Whole} {
				if v, ok := l.Percentiles[name]; ok {
					return NewFigure([]float64{v / 1e3})
				}
			}
			return nil
		}
	}
	return []struct {
		column
		figure func(fioRow) *Figure
	}{
		{column{key: "bw_bytes", head: "bandwidth", quantity: rateQuantity, better: 1}, func(r fioRow) *Figure {
			return within(r.dir.Bytes, r.dir.BWMin*1024, r.dir.BWMax*1024, r.dir.BWSamples)
		}},
		{column{key: "iops", head: "IOPS", unit: "/s", better: 1}, func(r fioRow) *Figure {
			return within(r.dir.IOPS, r.dir.IOPSMin, r.dir.IOPSMax, r.dir.IOPSSamples)
		}},
		{column{key: "lat_mean", head: "mean latency", quantity: microsQuantity, better: -1}, func(r fioRow) *Figure {
			for _, l := range []fioLatency{r.dir.Completion, r.dir.Whole} {
				if l.N > 0 {
					return NewFigure([]float64{l.Mean / 1e3})
				}
			}
			return nil
		}},
		{column{key: "p50", head: "p50", quantity: microsQuantity, better: -1}, percentile("50.000000")},
		{column{key: "p99", head: "p99", quantity: microsQuantity, better: -1}, percentile("99.000000")},
		{column{key: "p999", head: "p99.9", quantity: microsQuantity, better: -1}, percentile("99.900000")},
		{column{key: "cpu_us_per_io", head: "CPU", unit: "µs/I/O", better: -1}, func(r fioRow) *Figure {
			ios := 0.0
			for _, d := range []*fioDirection{r.job.Read, r.job.Write, r.job.Trim, r.job.Mixed} {
				if d != nil {
					ios += d.IOs
				}
			}
			if ios == 0 || r.job.User+r.job.System == 0 {
				return nil
			}
			return NewFigure([]float64{(r.job.User + r.job.System) / 100 * r.job.Runtime * 1e3 / ios})
		}},
	}
}

// within is a figure whose spread is that of the samples within the run, the
// only one that a single run has. Fewer than two say nothing.
func within(v, least, most, samples float64) *Figure {
	f := NewFigure([]float64{v})
	if samples >= 2 {
		f.Min, f.Max = math.Min(v, least), math.Max(v, most)
	}
	return f
}

// DiffFio is [Diff] for two results of fio: it compares jobs of the same name,
// direction by direction. It returns the number of regressions, to which a job
// that now fails belongs.
func DiffFio(a, b *FioFile, threshold float64) (Report, int) {
	report := Report{Threshold: threshold}
	if a.version != b.version {
		report.Warnings = append(report.Warnings, fmt.Sprintf("version of fio differs: %s, then %s", printable(a.version), printable(b.version)))
	}
	_, olds := a.rows()
	order, news := b.rows()
	for _, k := range order {
		before, ok := olds[k]
		if !ok {
			report.Missing = append(report.Missing, fmt.Sprintf("%s %s: only in the new run", k, k.direction))
			continue
		}
		report.compareFio(k, before, news[k])
	}
	order, _ = a.rows()
	for _, k := range order {
		if _, ok := news[k]; !ok {
			report.Missing = append(report.Missing, fmt.Sprintf("%s %s: only in the old run", k, k.direction))
		}
	}
	return report, report.Regressions
}

func (report *Report) compareFio(k fioKey, before, after fioRow) {
	if after.job.Error != 0 && before.job.Error == 0 {
		report.Missing = append(report.Missing, fmt.Sprintf("%s %s: REGRESSION: fails now, error %d", k, k.direction, after.job.Error))
		report.Regressions++
		return
	}
	for _, c := range fioFigures() {
		was, is := c.figure(before), c.figure(after)
		if was == nil || is == nil {
			continue
		}
		row := DiffRow{
			Workload: k.direction, Path: k.String(), Key: c.key, Old: was, New: is,
			column: c.column, heading: "fio " + k.direction,
		}
		row.judgeOnce(report.Threshold)
		report.add(row)
	}
}
