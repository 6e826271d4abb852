package netbench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
)

// maxFileBytes bounds what [ReadFile] reads: a run of all paths and workloads
// with their histograms stays below one megabyte.
const maxFileBytes = 64 << 20

// ReadFile reads what --json wrote and checks it: the version of the schema, one
// JSON value and nothing behind it, and that every figure can be what it says
// it is. Keys that this version does not know are allowed, as [SchemaVersion]
// promises.
func ReadFile(path string) (*File, error) {
	data, err := readResults(path)
	if err != nil {
		return nil, err
	}
	return parseResults(path, data, decode)
}

// readResults reads a result file of whatever kind.
func readResults(path string) ([]byte, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	defer in.Close()
	data, err := readBounded(in)
	if err != nil {
		return nil, fmt.Errorf("read results of %s: %w", path, err)
	}
	return data, nil
}

func parseResults[T any](path string, data []byte, parse func([]byte) (T, error)) (T, error) {
	v, err := parse(data)
	if err != nil {
		err = fmt.Errorf("read results of %s: %w", path, err)
	}
	return v, err
}

func readBounded(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFileBytes+1))
	if err == nil && len(data) > maxFileBytes {
		return nil, fmt.Errorf("longer than %d bytes", maxFileBytes)
	}
	return data, err
}

// Decode is [ReadFile] for any source, up to 64 MiB.
func Decode(r io.Reader) (*File, error) {
	data, err := readBounded(r)
	if err != nil {
		return nil, err
	}
	return decode(data)
}

func decode(data []byte) (*File, error) {
	if len(data) == 0 {
		return nil, errors.New("empty file")
	}
	// The version first: the rest of another version may not even have the
	// same types.
	var head struct {
		Schema *int `json:"schema"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("not the JSON of a run: %w", err)
	}
	switch {
	case head.Schema == nil:
		return nil, errors.New(`no "schema": not the JSON of a run`)
	case *head.Schema != SchemaVersion:
		return nil, fmt.Errorf("schema %d, but this program reads %d", *head.Schema, SchemaVersion)
	}
	f := new(File)
	if err := json.Unmarshal(data, f); err != nil {
		return nil, fmt.Errorf("not the JSON of a run: %w", err)
	}
	if err := f.check(); err != nil {
		return nil, err
	}
	return f, nil
}

// check refuses what no run can have written.
func (f *File) check() error {
	type key struct {
		path, workload string
		streams, size  int
	}
	seen := map[key]bool{}
	if len(f.Results) == 0 {
		return errors.New("there are no results in it")
	}
	for i := range f.Results {
		r := &f.Results[i]
		name := fmt.Sprintf("result %d (path %q, workload %q)", i, r.Path, r.Workload)
		switch k := (key{r.Path, r.Workload, r.Streams, r.Size}); {
		case r.Path == "" || r.Workload == "":
			return fmt.Errorf("result %d: no path or no workload", i)
		case r.Streams < 0 || r.Size < 0 || r.Rounds < 0:
			return fmt.Errorf("%s: negative streams, size or rounds", name)
		case seen[k]:
			return fmt.Errorf("%s: twice with %d streams and size %d", name, r.Streams, r.Size)
		default:
			seen[k] = true
		}
		for _, c := range allColumns() {
			if fig := c.figure(r); fig != nil {
				if err := fig.check(); err != nil {
					return fmt.Errorf("%s: %s: %w", name, c.key, err)
				}
			}
		}
		if r.Latency != nil {
			for _, p := range r.Latency.Curve {
				if !(p.Percentile >= 0 && p.Percentile <= 100) || !(p.Us >= 0) {
					return fmt.Errorf("%s: latency_us.curve: no such point: %v", name, p)
				}
			}
		}
	}
	return nil
}

// check compares the summary with the samples, where there are any: whoever
// reads a median relies on its being theirs.
func (f *Figure) check() error {
	if !(f.Min <= f.Median && f.Median <= f.Max) {
		return fmt.Errorf("median %v is not within %v and %v", f.Median, f.Min, f.Max)
	}
	for _, s := range f.Samples {
		if !(f.Min <= s && s <= f.Max) {
			return fmt.Errorf("sample %v is not within %v and %v", s, f.Min, f.Max)
		}
	}
	of := NewFigure(f.Samples)
	if of == nil {
		return nil
	}
	for _, v := range []struct {
		name     string
		said, is float64
	}{{"median", f.Median, of.Median}, {"least", f.Min, of.Min}, {"most", f.Max, of.Max}} {
		const rounding = 1e-9
		if math.Abs(v.said-v.is) > rounding*math.Abs(v.is) {
			return fmt.Errorf("%s %v, but that of the samples is %v", v.name, v.said, v.is)
		}
	}
	return nil
}
