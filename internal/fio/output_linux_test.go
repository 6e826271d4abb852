package fio_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/spliced-io/spliced/internal/fio"
	"github.com/spliced-io/spliced/internal/testnet"
)

func text(t *testing.T, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	code := fio.Main(t.Context(), args, fio.Streams{Out: &out, Err: &errs, Version: "test"})
	if code != 0 || errs.Len() > 0 {
		t.Fatalf("%v: exit code %d, %s", args, code, errs.String())
	}
	return out.String()
}

// What fio writes we can verify, and the other way round: header, checksums
// and their places are fio's.
func TestVerifyIsFios(t *testing.T) {
	testnet.Need(t, "fio")
	dir := t.TempDir()
	var jobs []string // one a mode and shape, for one run of each program
	for _, mode := range []string{
		"md5", "crc64", "crc32", "crc32c", "crc16", "crc7", "sha1", "sha256", "sha512", "sha3-224", "sha3-256", "sha3-384", "sha3-512",
		"xxhash", "meta", "crc32c-intel", "pattern",
	} {
		shapes := [][]string{nil}
		switch mode {
		case "pattern": // 3.33 has no pattern_hdr
			shapes = [][]string{{"--verify_pattern=0xdeadbeef%o"}}
		case "sha256", "sha512":
			// Lengths of which the last block has more and less than 56 bytes.
			shapes = append(shapes, []string{"--verify_interval=512", "--bs=512"}, []string{"--bs=1000", "--size=64000"}, []string{"--bs=1024", "--verify_offset=400"})
		case "crc32c":
			shapes = append(shapes, []string{"--verify_interval=1k"}, []string{"--verify_interval=2k", "--verify_offset=100"})
		}
		for i, extra := range shapes {
			name := fmt.Sprintf("%s-%d", mode, i)
			jobs = append(append(jobs, "--name="+name, "--filename="+filepath.Join(dir, name), "--verify="+mode), extra...)
		}
	}
	args := func(rw, verify string) []string {
		return append([]string{"--size=64k", "--bs=4k", "--rw=" + rw, "--do_verify=" + verify, "--thread", "--output-format=json", "--aux-path=" + dir}, jobs...)
	}
	theirs := func(args []string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "fio", args...).CombinedOutput(); err != nil {
			t.Errorf("fio %v: %v\n%s", args, err, out)
		}
	}
	theirs(args("randwrite", "0"))
	text(t, args("read", "1")...)
	text(t, args("randwrite", "0")...)
	theirs(args("read", "1"))
}

// The keys of fio's JSON are all there.
func TestJSONHasFiosKeys(t *testing.T) {
	testnet.Need(t, "fio")
	dir := t.TempDir()
	args := []string{"--name=j", "--filename=" + filepath.Join(dir, "x"), "--size=256k", "--rw=randrw", "--output-format=json+", "--aux-path=" + dir}
	theirs, err := exec.CommandContext(t.Context(), "fio", args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	var a, b map[string]any
	if err := json.Unmarshal(theirs, &a); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(text(t, args...)), &b); err != nil {
		t.Fatal(err)
	}
	compareKeys(t, "", a, b)
}

func compareKeys(t *testing.T, path string, theirs, ours any) {
	t.Helper()
	switch theirs := theirs.(type) {
	case map[string]any:
		ours, _ := ours.(map[string]any)
		for k, v := range theirs {
			if strings.HasSuffix(path, "/bins") || path == "/disk_util[0]" {
				continue // other latencies, other disks
			}
			if _, ok := ours[k]; !ok {
				t.Errorf("%s/%s is missing", path, k)
				continue
			}
			compareKeys(t, path+"/"+k, v, ours[k])
		}
	case []any:
		ours, _ := ours.([]any)
		for i := range theirs {
			if i < len(ours) {
				compareKeys(t, fmt.Sprintf("%s[%d]", path, i), theirs[i], ours[i])
			}
		}
	}
}

// Terse lines have as many fields as fio's, and the same ones are percentages.
func TestTerseIsFios(t *testing.T) {
	testnet.Need(t, "fio")
	dir := t.TempDir()
	args := []string{"--name=j", "--filename=" + filepath.Join(dir, "x"), "--size=64k", "--rw=rw", "--minimal", "--aux-path=" + dir}
	theirs, err := exec.CommandContext(t.Context(), "fio", args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	a, b := strings.Split(strings.TrimSpace(string(theirs)), ";"), strings.Split(strings.TrimSpace(text(t, args...)), ";")
	if len(a) != len(b) {
		t.Fatalf("%d fields, fio has %d", len(b), len(a))
	}
	for i := range a {
		if strings.HasSuffix(a[i], "%") != strings.HasSuffix(b[i], "%") || strings.Contains(a[i], "%=") != strings.Contains(b[i], "%=") {
			t.Errorf("field %d is %q, fio's is %q", i, b[i], a[i])
		}
	}
}

func TestNDJSONIntervalsAddUp(t *testing.T) {
	out := text(t, "--name=j", "--ioengine=null", "--size=1g", "--rw=randrw", "--rate_iops=2000,1000", "--time_based", "--runtime=1",
		"--output-format=ndjson", "--status-interval=200ms")
	var ios, total uint64
	intervals := 0
	for line := range strings.Lines(out) {
		var v struct {
			Type  string
			Read  direction2
			Write direction2
			Jobs  []jobResult
		}
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		if v.Type == "interval" {
			ios += v.Read.IOs + v.Write.IOs
			intervals++
		} else {
			total = v.Jobs[0].Read.IOs + v.Jobs[0].Write.IOs
		}
	}
	if intervals < 4 || ios != total || total == 0 {
		t.Errorf("%d intervals with %d I/Os, the result has %d", intervals, ios, total)
	}
}

type direction2 struct {
	IOs uint64 `json:"ios"`
}

func TestLogsHaveFiosColumns(t *testing.T) {
	dir := t.TempDir()
	base := filepath.Join(dir, "log")
	text(t, "--name=j", "--filename="+filepath.Join(dir, "x"), "--size=64k", "--rw=randread", "--output-format=json",
		"--write_lat_log="+base, "--write_bw_log="+base, "--write_iops_log="+base, "--log_offset=1", "--log_issue_time=1", "--log_prio=1")
	for _, kind := range []string{"bw", "iops", "clat", "lat"} {
		b, err := os.ReadFile(base + "_" + kind + ".1.log")
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		if len(lines) != 16 {
			t.Errorf("%s has %d lines, want one an I/O", kind, len(lines))
		}
		offsets := map[string]bool{}
		for _, line := range lines {
			f := strings.Split(line, ", ")
			if len(f) != 7 || f[2] != "0" || f[3] != "4096" || f[5] != "0x0000" {
				t.Errorf("%s: %q", kind, line)
				continue
			}
			offsets[f[4]] = true
			if n, err := strconv.Atoi(f[4]); err != nil || n%4096 != 0 || n >= 64<<10 {
				t.Errorf("%s: offset %q", kind, f[4])
			}
		}
		if len(offsets) != 16 {
			t.Errorf("%s has %d different offsets, want all 16", kind, len(offsets))
		}
	}
}

func TestHTMLStandsAlone(t *testing.T) {
	page := filepath.Join(t.TempDir(), "r.html")
	text(t, "--ioengine=null", "--size=1g", "--rate_iops=1000", "--time_based", "--runtime=1", "--status-interval=100ms",
		"--output-format=json", "--html="+page, "--name=<a>&b", "--name=c", "--rw=write")
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	s := string(b)
	for _, want := range []string{"Latency percentiles", "Bandwidth over time", "&lt;a&gt;&amp;b", "<polyline", "</html>"} {
		if !strings.Contains(s, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, bad := range []string{"<a>", "http://", "https://", "NaN", "Inf", "<script"} {
		if strings.Contains(s, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
}

func TestProgressOnStandardErrorOnly(t *testing.T) {
	var out, errs bytes.Buffer
	code := fio.Main(t.Context(), []string{
		"--name=j", "--ioengine=null", "--size=1g", "--rate_iops=1000", "--time_based", "--runtime=1",
		"--output-format=json", "--eta=always", "--eta-interval=200ms",
	}, fio.Streams{Out: &out, Err: &errs})
	if !json.Valid(out.Bytes()) || code != 0 {
		t.Errorf("exit code %d, standard output is not JSON alone: %s", code, out.String())
	}
	if s := errs.String(); !strings.Contains(s, "[eta 00m:01s]") || !strings.Contains(s, "[R(1)]") || strings.Contains(s, "unknown") {
		t.Errorf("progress is %q", s)
	}
}

func TestShowCommandAndParseOnly(t *testing.T) {
	dir := t.TempDir()
	jobs := filepath.Join(dir, "jobs")
	if err := os.WriteFile(jobs, []byte("[global]\nsize=1m\n[a]\nrw=write\nfilename="+dir+"/made\n[b]\nbs=1k\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := text(t, "--showcmd", "--section=b", jobs); got != "fio --name=global --size=1m --name=b --bs=1k\n" {
		t.Errorf("%q", got)
	}
	if got := text(t, "--parse-only", jobs); !strings.Contains(got, "a: (g=0): rw=write") {
		t.Errorf("%q", got)
	}
	if _, err := os.Stat(dir + "/made"); err == nil {
		t.Error("--parse-only made a file")
	}
}
