package fio_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// A job at a constant rate becomes steady and ends long before its time; one
// that is only getting slower does not.
func TestSteadyStateEndsTheJob(t *testing.T) {
	dir := t.TempDir()
	args := []string{
		"--name=j", "--ioengine=null", "--size=1g", "--time_based", "--runtime=120", "--rate_iops=2000", "--numjobs=2", "--group_reporting",
		"--ss_interval=100ms", "--ss_dur=500ms",
	}
	for _, criterion := range []string{"iops:30%", "bw_slope:30%", "lat_slope:1000000"} {
		o := mustRun(t, dir, append(args, "--steadystate="+criterion)...)
		var doc struct {
			Jobs []struct {
				Runtime int `json:"job_runtime"`
				Steady  struct {
					SS       string `json:"ss"`
					Attained int    `json:"attained"`
					Data     struct {
						IOPS []float64 `json:"iops"`
						BW   []float64 `json:"bw"`
					} `json:"data"`
				} `json:"steadystate"`
			} `json:"jobs"`
		}
		if err := json.Unmarshal([]byte(o.out), &doc); err != nil {
			t.Fatal(err)
		}
		j := doc.Jobs[0]
		if s := j.Steady; s.SS != criterion || s.Attained != 1 || len(s.Data.IOPS) != 5 || len(s.Data.BW) != 5 || j.Runtime > 200_000 {
			t.Errorf("%s: %+v", criterion, j)
		}
	}
	o := mustRun(t, dir, "--name=j", "--ioengine=null", "--size=1g", "--time_based", "--runtime=1", "--rate_iops=2000",
		"--ss_interval=100ms", "--ss_dur=500ms", "--steadystate=iops:0.000001")
	if !strings.Contains(o.out, `"attained" : 0`) || o.Jobs[0].Read.IOs < 1500 {
		t.Errorf("%d I/Os, %s", o.Jobs[0].Read.IOs, o.out)
	}
}

func TestSequenceOfBlocks(t *testing.T) {
	dir := t.TempDir()
	offsets := func(args ...string) string {
		log := filepath.Join(dir, "io")
		mustRun(t, dir, append([]string{
			"--name=j", "--filename=f", "--size=64k", "--bs=4k", "--rw=randread", "--number_ios=7", "--write_iolog=" + log,
		}, args...)...)
		b, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) == 5 && f[2] == "read" {
				n, err := strconv.Atoi(f[3])
				if err != nil {
					t.Fatal(err)
				}
				list = append(list, strconv.Itoa(n/4096))
			}
		}
		return strings.Join(list, " ")
	}
	if got := offsets("--random_distribution=sequence:2,0,1"); got != "2 0 1 2 0 1 2" {
		t.Error(got)
	}
	if got := offsets("--random_distribution=sequence:2,0,1", "--random_sequence_stride=1"); got != "2 0 1 5 3 4 8" {
		t.Error(got)
	}
}

// A write that was cut short is verified as far as it went, and no further.
func TestVerifyState(t *testing.T) {
	for _, engine := range []string{"psync", "io_uring"} {
		dir := t.TempDir()
		common := []string{"--name=a/b", "--filename=f", "--size=1m", "--bs=4k", "--verify=crc32c", "--ioengine=" + engine, "--iodepth=4"}
		mustRun(t, dir, append(common, "--rw=randwrite", "--number_ios=100", "--do_verify=0", "--verify_state_save=1")...)
		// Without the state the blocks that were never written are found wrong.
		if o := runJobs(t, dir, append(common, "--rw=randwrite", "--verify_only")...); o.code == 0 {
			t.Fatalf("%s: the file was written only in part, and all of it is right", engine)
		}
		for _, how := range [][]string{{"--rw=randread"}, {"--rw=randwrite", "--verify_only"}} {
			o := mustRun(t, dir, append(append(common, how...), "--verify_state_load=1")...)
			if n := o.Jobs[0].Read.IOs; n != 100 {
				t.Errorf("%s %v: %d blocks verified, 100 were written", engine, how, n)
			}
		}
		state := filepath.Join(dir, "local-a.b-0-verify.state")
		for name, text := range map[string]string{
			"fio's": "\x07\x00\x00\x00\x00\x00\x00\x00", "another job's": `{"spliced_fio_verify_state":1,"job":"x","writes":1}`,
			"a later version": `{"spliced_fio_verify_state":9,"job":"a/b","writes":1}`, "empty": "",
		} {
			if err := os.WriteFile(state, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			o := runJobs(t, dir, append(common, "--rw=randread", "--verify_state_load=1")...)
			if o.code != 1 || !strings.Contains(o.err, "verify_state_load") || !strings.Contains(o.err, "a.b-0") {
				t.Errorf("%s: exit code %d, %s", name, o.code, o.err)
			}
		}
	}
}
