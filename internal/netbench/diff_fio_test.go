package netbench

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spliced-io/spliced/internal/testnet"
)

// fioDoc is JSON as fio writes it, of one job that reads at so many MB/s.
func fioDoc(name string, mb, errno int) string {
	return fmt.Sprintf(`{
  "fio version" : "fio-3.33",
  "jobs" : [{"jobname" : %q, "groupid" : 0, "error" : %d, "job_runtime" : 1000, "usr_cpu" : 10.0, "sys_cpu" : 40.0,
    "read" : {"total_ios" : %d, "bw_bytes" : %d, "bw_min" : %d, "bw_max" : %d, "bw_samples" : 4,
      "iops" : %d, "iops_min" : 0, "iops_max" : 0, "iops_samples" : 0,
      "clat_ns" : {"N" : 100, "mean" : %d, "percentile" : {"50.000000" : %d, "99.000000" : 2000, "99.900000" : 3000}}},
    "write" : {"total_ios" : 0, "bw_bytes" : 0}}]
}
`, name, errno, mb*250, mb*1000_000, mb*900, mb*1000, mb*250, 4000_000/mb, 3000_000/mb)
}

func readFio(t *testing.T, text string) *FioFile {
	t.Helper()
	f, err := decodeFio([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestDiffFio(t *testing.T) {
	t.Parallel()
	a := readFio(t, fioDoc("a", 1000, 0))
	for _, c := range []struct {
		name, doc string
		n         int
		want      []string
	}{
		{"the same", fioDoc("a", 1000, 0), 0, []string{"fio read", "0 regressions"}},
		{"half as fast", fioDoc("a", 500, 0), 5, []string{"bandwidth", "REGRESSION", "-50.0%"}},
		{"twice as fast", fioDoc("a", 2000, 0), 0, []string{"better"}},
		{"a little slower", fioDoc("a", 980, 0), 0, []string{"-2.0%"}},
		{"within the samples", fioDoc("a", 940, 0), 0, nil}, // see below
		{"it fails", fioDoc("a", 1000, 5), 1, []string{"a read: REGRESSION: fails now, error 5"}},
		{"another job", fioDoc("b", 1000, 0), 0, []string{"b read: only in the new run", "a read: only in the old run"}},
		{"notes before", "note: both iodepth\n" + fioDoc("a", 1000, 0), 0, []string{"0 regressions"}},
		{"several documents", fioDoc("a", 10, 0) + fioDoc("a", 1000, 0), 0, []string{"0 regressions"}},
		{"lines", `{"type":"interval","read":{}}` + "\n" + strings.ReplaceAll(fioDoc("a", 1000, 0), "\n", " ") + "\n", 0, []string{"0 regressions"}},
	} {
		report, n := DiffFio(a, readFio(t, c.doc), 0.05)
		if c.name == "within the samples" {
			// The bandwidth moved within its spread; what has none did not.
			if report.Rows[0].Verdict != Noise {
				t.Errorf("%s: %+v", c.name, report.Rows[0])
			}
			continue
		}
		var text bytes.Buffer
		if err := report.Write(&text); err != nil {
			t.Fatal(err)
		}
		if n != c.n {
			t.Errorf("%s: %d regressions, want %d:\n%s", c.name, n, c.n, text.String())
		}
		for _, want := range c.want {
			if !strings.Contains(text.String(), want) {
				t.Errorf("%s: not said: %q in\n%s", c.name, want, text.String())
			}
		}
	}
}

func TestFioFilesThatAreNone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good", fioDoc("a", 1, 0))
	for name, text := range map[string]string{
		"empty": "", "text": "hello\n", "no jobs": `{"fio version":"fio-3.33","jobs":[]}`, "cut": fioDoc("a", 1, 0)[:200],
		"cut behind": fioDoc("a", 1, 0) + "{", "negative": strings.Replace(fioDoc("a", 1, 0), `"total_ios" : 250`, `"total_ios" : -1`, 1),
		"a run of the bench": `{"schema": 1}`,
	} {
		bad := write(strings.ReplaceAll(name, " ", "-"), text)
		for _, pair := range [][2]string{{good, bad}, {bad, good}} {
			if _, _, err := DiffFiles(pair[0], pair[1], 0.05); err == nil || !strings.Contains(err.Error(), bad) {
				t.Errorf("%s: %v; want an error that names the file", name, err)
			}
		}
	}
}

// fio's own JSON is read, with and without what else it prints.
func TestDiffReadsFio(t *testing.T) {
	t.Parallel()
	testnet.Need(t, "fio")
	path := filepath.Join(t.TempDir(), "fio.json")
	out, err := exec.CommandContext(t.Context(), "fio", "--output-format=json+", "--ioengine=null", "--size=64m", "--rw=randrw",
		"--name=a", "--numjobs=2", "--name=b", "--iodepth=4").Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, out, 0o600); err != nil {
		t.Fatal(err)
	}
	report, n, err := DiffFiles(path, path, 0)
	if err != nil || n != 0 || len(report.Missing) != 0 {
		t.Fatalf("%d regressions against itself, %v, %v", n, report.Missing, err)
	}
	keys := map[string]int{}
	for _, row := range report.Rows {
		keys[row.Path+" "+row.Workload+" "+row.Key]++
	}
	for _, want := range []string{"a read bw_bytes", "a #2 write iops", "b read p99", "b write lat_mean"} {
		if keys[want] != 1 {
			t.Errorf("%q is compared %d times", want, keys[want])
		}
	}
}

// What comes through a pipe, as of <(command), can be read once only.
func TestDiffReadsPipes(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/dev/fd"); err != nil {
		t.Skip(err) // not on every system
	}
	for name, data := range map[string][]byte{"bench": mustJSON(t, sampleRun()), "fio": []byte(fioDoc("a", 1, 0))} {
		var paths []string
		for range 2 {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			written := make(chan struct{})
			defer func() { <-written }()
			defer r.Close()
			go func() {
				defer close(written)
				defer w.Close()
				_, _ = w.Write(data) // the reader says what is missing
			}()
			paths = append(paths, fmt.Sprintf("/dev/fd/%d", r.Fd()))
		}
		report, _, err := DiffFiles(paths[0], paths[1], 0.05)
		if err != nil || len(report.Rows) == 0 {
			t.Errorf("%s: %d rows, %v", name, len(report.Rows), err)
		}
	}
}

func FuzzReadFio(f *testing.F) {
	f.Add([]byte(fioDoc("a", 1, 0)))
	f.Add([]byte(`{"fio version":"x","jobs":[{"read":{"total_ios":1e999}}]}`))
	f.Add([]byte("note\n{}{"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := decodeFio(data)
		if err != nil {
			return
		}
		report, n := DiffFio(file, file, 0)
		if n != 0 {
			t.Errorf("%d regressions against itself", n)
		}
		if err := report.Write(new(bytes.Buffer)); err != nil {
			t.Error(err)
		}
	})
}
