package fio_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Two jobs in a flow make I/O as their weights say, until the first has ended.
func TestFlow(t *testing.T) {
	o := mustRun(t, t.TempDir(), "--ioengine=null", "--bs=4k", "--size=256m", "--flow_id=7", "--exitall", "--exit_what=all",
		"--name=one", "--flow=1", "--name=eight", "--flow=8")
	one, eight := o.Jobs[0].Read.IOs, o.Jobs[1].Read.IOs
	if ratio := float64(eight) / float64(max(one, 1)); eight != 65536 || ratio < 7.5 || ratio > 8.5 {
		t.Errorf("%d and %d I/Os, want them 1 to 8", one, eight)
	}
}

// The depth that latency_target finds is the largest with which I/Os keep below
// it: with a limit that all keep, the whole depth, with one that none keeps,
// none.
func TestLatencyTarget(t *testing.T) {
	dir := t.TempDir()
	args := []string{
		"--name=j", "--filename=f", "--size=1m", "--rw=randread", "--bs=4k", "--ioengine=io_uring", "--iodepth=16",
		"--time_based", "--runtime=60", "--latency_window=50ms", "--latency_percentile=50",
	}
	o := mustRun(t, dir, append(args, "--latency_target=30s")...)
	if !strings.Contains(o.out, `"latency_depth" : 16`) {
		t.Errorf("a target that all I/Os meet: %s", o.out)
	}
	o = runJobs(t, dir, append(args, "--latency_target=1ns")...)
	if o.code != 1 || !strings.Contains(o.err, "latency_target") {
		t.Errorf("a target that none meets: exit code %d, %s", o.code, o.err)
	}
}

// Each line of the histogram log has all buckets, 2^coarseness of them added
// up, and all lines together all I/Os.
func TestHistogramLog(t *testing.T) {
	for coarseness, buckets := range map[int]int{0: 1856, 6: 1856 / 64} {
		dir := t.TempDir()
		o := mustRun(t, dir, "--name=j", "--ioengine=null", "--size=1g", "--rw=randrw", "--rate_iops=4000,2000", "--time_based", "--runtime=1",
			"--write_hist_log=h", "--log_hist_msec=100", fmt.Sprintf("--log_hist_coarseness=%d", coarseness))
		b, err := os.ReadFile(filepath.Join(dir, "h_clat_hist.1.log"))
		if err != nil {
			t.Fatal(err)
		}
		var sums [2]uint64
		lines := 0
		for line := range strings.Lines(string(b)) {
			f := strings.Split(strings.TrimSpace(line), ", ")
			if len(f) != 3+buckets || f[2] != "4096" {
				t.Fatalf("%d fields in %q, want time, direction, size and %d buckets", len(f), line, buckets)
			}
			dir, err := strconv.Atoi(f[1])
			if err != nil || dir > 1 {
				t.Fatalf("direction %q", f[1])
			}
			for _, word := range f[3:] {
				n, err := strconv.ParseUint(word, 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				sums[dir] += n
			}
			lines++
		}
		if want := [2]uint64{o.Jobs[0].Read.IOs, o.Jobs[0].Write.IOs}; lines < 4 || sums != want {
			t.Errorf("coarseness %d: %d lines with %v I/Os, the result has %v", coarseness, lines, sums, want)
		}
	}
}

// The I/O log is fio's version 3: each I/O with its file, offset and length,
// between open and close.
func TestIOLog(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "io")
	name := filepath.Join(dir, "f")
	mustRun(t, dir, "--name=j", "--filename="+name, "--size=32k", "--bs=4k", "--rw=randwrite", "--write_iolog="+log)
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if len(lines) != 1+2+8+1 || lines[0] != "fio version 3 iolog" || !strings.HasSuffix(lines[1], " "+name+" add") ||
		!strings.HasSuffix(lines[2], " "+name+" open") || !strings.HasSuffix(lines[11], " "+name+" close") {
		t.Fatalf("%s", b)
	}
	seen := map[string]bool{}
	for _, line := range lines[3:11] {
		f := strings.Fields(line)
		if len(f) != 5 || f[1] != name || f[2] != "write" || f[4] != "4096" {
			t.Errorf("%q", line)
			continue
		}
		seen[f[3]] = true
	}
	if len(seen) != 8 {
		t.Errorf("%d offsets, want all 8", len(seen))
	}
}
