package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/netbench"
)

func TestBenchRefusesBadInput(t *testing.T) {
	dir := t.TempDir()
	for _, test := range []struct {
		args string
		code int
		want string // in the one line that says why
	}{
		{"net --path squid", exitUsage, `path "squid"`},
		{"net --workload http", exitUsage, `workload "http"`},
		{"net --topology ring", exitUsage, `topology "ring"`},
		{"net --rounds 0", exitUsage, "rounds 0"},
		{"net --rounds=-1", exitUsage, "rounds -1"},
		{"net --duration 0s", exitUsage, "duration 0s"},
		{"net --duration=-1s", exitUsage, "-1s"},
		{"net --streams 0", exitUsage, "streams 0"},
		{"net --size 0", exitUsage, "size 0"},
		{"net --size 2MiB", exitUsage, "size 2097152"},
		{"net --pairs 0", exitUsage, "pairs 0"},
		{"net --rate 0", exitUsage, "rate 0"},
		{"net --workload rr-open --rate 1 --streams 2", exitUsage, "rate 1: want 2 or more"},
		{"net --proxy nginx", exitUsage, `proxy "nginx"`},
		{"net --json " + dir, exitFailed, "directory"},
		{"net --json " + filepath.Join(dir, "none", "x.json"), exitFailed, "none"},
		{"net --json " + filepath.Join(dir, "x.json") + " --html " + filepath.Join(dir, "none", "x.html"), exitFailed, "none"},
		{"source nowhere", exitUsage, `address "nowhere"`},
		{"source host:1 --workload http", exitUsage, `workload "http"`},
		{"sockmap --mode rx-fast", exitUsage, `mode "rx-fast"`},
		{"sockmap --consumer mmap", exitUsage, `consumer "mmap"`},
		{"sockmap --rounds 0", exitUsage, "rounds 0"},
		{"sockmap --size 0", exitUsage, "size 0"},
		{"sockmap --size 8GiB", exitUsage, "size"},
		{"sockmap --strp 4096", exitUsage, "SPLICED_STREAM_PARSERS=1"},
		{"sockmap --delay-consumer 1h", exitUsage, "1h0m0s"},
		{"sockmap --max-queued 1kB", exitUsage, "max-queued 1000"},
		{"sockmap --json " + dir, exitFailed, "directory"},
		{"sink 127.0.0.1:port", exitFailed, "unknown port"},
		{"source host:1 --html " + filepath.Join(dir, "x") + " --benchstat " + filepath.Join(dir, "x"), exitUsage, "--html writes there"},
		{"diff a b --threshold 5", exitUsage, `threshold "5"`},
		{"net --json " + filepath.Join(dir, "x") + " --html " + filepath.Join(dir, "x"), exitUsage, "--json writes there"},
		{"net --html " + filepath.Join(dir, "x") + " --benchstat " + filepath.Join(dir, ".", "y", "..", "x"), exitUsage, "--html writes there"},
		{"source host:1 --json " + filepath.Join(dir, "x") + " --html " + filepath.Join(dir, "x"), exitUsage, "--json writes there"},
		{"diff " + filepath.Join(dir, "a") + " " + filepath.Join(dir, "b"), exitUsage, "no such file"},
		{"report " + filepath.Join(dir, "a"), exitFailed, "no such file"},
	} {
		var out, errs bytes.Buffer
		code := run(append([]string{"bench"}, strings.Fields(test.args)...), streams{&out, &errs})
		said := strings.TrimSpace(errs.String())
		if code != test.code || !strings.Contains(said, test.want) || strings.Contains(said, "\n") || out.Len() > 0 {
			t.Errorf("bench %s: exit code %d, want %d; stdout %q, stderr %q, want one line with %q",
				test.args, code, test.code, out.String(), said, test.want)
		}
	}
	var out, errs bytes.Buffer
	if code := run([]string{"bench", "sink", ""}, streams{&out, &errs}); code != exitUsage || !strings.Contains(errs.String(), "address is empty") {
		t.Errorf("an empty address: exit code %d, %s", code, errs.String())
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("files left behind: %v, %v", left, err)
	}
}

// sampleFile writes the results of a run with one figure.
func sampleFile(t *testing.T, name string, throughput float64) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	output, err := netbench.OpenOutput(path)
	if err != nil {
		t.Fatal(err)
	}
	defer output.Discard()
	file := openedOutputs{files: []openOutput{{output, netbench.WriteJSON}}}
	err = file.commit(&netbench.File{
		Schema: netbench.SchemaVersion, Tool: "test", Started: time.Unix(0, 0).UTC(),
		Config: netbench.Config{Topology: netbench.TopologyLoopback, Rounds: 5},
		Results: []netbench.Result{{
			Path: netbench.PathSplice, Workload: netbench.WorkloadBulk, Streams: 1, Size: 1, Rounds: 5,
			Throughput: netbench.NewFigure([]float64{throughput, throughput, throughput, throughput, throughput}),
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// One round of two ways from socket to socket that need no privileges.
func TestBenchSockmap(t *testing.T) {
	json := filepath.Join(t.TempDir(), "run.json")
	args := "bench sockmap --mode rx-normal,tx-normal --rounds 1 --duration 20ms --warmup 0s --max-queued 1MiB --json " + json
	var out, errs bytes.Buffer
	if code := run(strings.Fields(args), streams{&out, &errs}); code != exitOK {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	for _, want := range []string{"rx-normal", "tx-normal", "sockmap-read", "sockmap-splice", "receiver CPU"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table has no %q:\n%s", want, out.String())
		}
	}
	out.Reset()
	if code := run([]string{"bench", "diff", json, json}, streams{&out, &errs}); code != exitOK || !strings.Contains(out.String(), "0 regressions") {
		t.Errorf("a run beside itself: exit code %d, %s", code, out.String())
	}
}

func TestBenchDiffAndReport(t *testing.T) {
	fast, slow := sampleFile(t, "fast.json", 2e9), sampleFile(t, "slow.json", 1e9)
	for _, test := range []struct {
		args []string
		code int
		want string // on standard output
	}{
		{[]string{"diff", fast, slow}, exitFailed, "REGRESSION"},
		{[]string{"diff", slow, fast}, exitOK, "better"},
		{[]string{"diff", fast, slow, "--threshold", "60%"}, exitOK, "0 regressions"},
		{[]string{"report", fast}, exitOK, "splice"},
	} {
		var out, errs bytes.Buffer
		code := run(append([]string{"bench"}, test.args...), streams{&out, &errs})
		if code != test.code || !strings.Contains(out.String(), test.want) {
			t.Errorf("bench %v: exit code %d, want %d; stdout %q, want %q; stderr %q",
				test.args, code, test.code, out.String(), test.want, errs.String())
		}
	}
	malformed := filepath.Join(t.TempDir(), "malformed.json")
	if err := os.WriteFile(malformed, []byte(`{"schema": 1, "results": [`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"diff", fast, malformed}, {"diff", malformed, fast}} {
		var out, errs bytes.Buffer
		if code := run(append([]string{"bench"}, args...), streams{&out, &errs}); code != exitUsage || out.Len() > 0 {
			t.Errorf("bench %v: exit code %d, want %d; stdout %q, stderr %q", args, code, exitUsage, out.String(), errs.String())
		}
	}
	markdown := filepath.Join(t.TempDir(), "report.md")
	var out, errs bytes.Buffer
	if code := run([]string{"bench", "report", fast, "--markdown", markdown}, streams{&out, &errs}); code != exitOK {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
	if text, err := os.ReadFile(markdown); err != nil || !strings.Contains(string(text), "splice") {
		t.Errorf("the report is %q, %v", text, err)
	}
}

// A result file is never written over by the report that is made of it.
func TestBenchReportKeepsItsInput(t *testing.T) {
	file := sampleFile(t, "run.json", 1e9)
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link.json")
	if err := os.Symlink(file, link); err != nil {
		t.Skip(err) // not on every system
	}
	for _, args := range [][]string{
		{"report", file, "--html", file},
		{"report", file, "--markdown", link},
		{"report", link, "--benchstat", file},
	} {
		var out, errs bytes.Buffer
		if code := run(append([]string{"bench"}, args...), streams{&out, &errs}); code != exitUsage || !strings.Contains(errs.String(), "it is read here") {
			t.Errorf("bench %v: exit code %d, want %d; stderr %q", args, code, exitUsage, errs.String())
		}
		if after, err := os.ReadFile(file); err != nil || !bytes.Equal(after, before) {
			t.Fatalf("bench %v: the result file is %d bytes now, was %d; %v", args, len(after), len(before), err)
		}
	}
	// Through a link the file is replaced that it leads to.
	other := sampleFile(t, "other.json", 1e9)
	var out, errs bytes.Buffer
	if code := run([]string{"bench", "report", other, "--benchstat", link}, streams{&out, &errs}); code != exitOK {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	if after, err := os.ReadFile(file); err != nil || !strings.Contains(string(after), "BenchmarkNet") {
		t.Errorf("behind the link there is %q, %v", after, err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v, %v", info, err)
	}
}

// An output that can't be written to its end costs no other one, nor the table.
func TestBenchWritesWhatItCan(t *testing.T) {
	const full = "/dev/full"
	if _, err := os.Stat(full); err != nil {
		t.Skip(err) // not on every system
	}
	file, err := netbench.ReadFile(sampleFile(t, "run.json", 1e9))
	if err != nil {
		t.Fatal(err)
	}
	page := filepath.Join(t.TempDir(), "run.html")
	outputs, err := openOutputs([]outputTo{
		{"--json", full, netbench.WriteJSON},
		{"--html", page, netbench.WriteHTML},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer outputs.discard()
	var out, errs bytes.Buffer
	if err := outputs.report(streams{&out, &errs}, file, nil); err == nil || !strings.Contains(err.Error(), "write /dev/full: no space left") {
		t.Errorf("the error is %v", err)
	}
	if !strings.Contains(out.String(), "throughput") {
		t.Errorf("the table is %q", out.String())
	}
	if text, err := os.ReadFile(page); err != nil || !strings.Contains(string(text), "</html>") {
		t.Errorf("the page has %d bytes, %v", len(text), err)
	}
}

// A run that could not take its things away has results all the same.
func TestBenchReportsBesideAnError(t *testing.T) {
	file, err := netbench.ReadFile(sampleFile(t, "run.json", 1e9))
	if err != nil {
		t.Fatal(err)
	}
	again := filepath.Join(t.TempDir(), "again.json")
	outputs, err := openOutputs([]outputTo{{"--json", again, netbench.WriteJSON}})
	if err != nil {
		t.Fatal(err)
	}
	defer outputs.discard()
	var out, errs bytes.Buffer
	left := errors.New("remove namespace: busy")
	if err := outputs.report(streams{&out, &errs}, file, left); !errors.Is(err, left) {
		t.Errorf("the error is %v", err)
	}
	if !strings.Contains(out.String(), "throughput") {
		t.Errorf("the table is %q", out.String())
	}
	if _, err := netbench.ReadFile(again); err != nil {
		t.Error(err)
	}
}
