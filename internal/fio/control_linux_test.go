package fio_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func writeFile(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Files are named after the section, reports and logs after name=.
func TestNameInASection(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "jobs"), "[section]\nname=title\nrw=write\nsize=64k\nwrite_bw_log\n")
	o := mustRun(t, dir, filepath.Join(dir, "jobs"))
	if got := o.Jobs[0].Name; got != "title" {
		t.Errorf("reported as %q, want title", got)
	}
	for _, name := range []string{"section.0.0", "title_bw.1.log"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestCommandsBeforeAndAfter(t *testing.T) {
	dir := t.TempDir()
	f := filepath.Join(dir, "f")
	o := mustRun(t, dir, "--name=j", "--filename="+f, "--size=64k", "--rw=read",
		"--exec_prerun=cp "+f+" "+f+".before; echo one; echo two >&2", "--exec_postrun=mv "+f+" "+f+".after")
	for _, name := range []string{f + ".before", f + ".after"} {
		if i, err := os.Stat(name); err != nil || i.Size() != 64<<10 {
			t.Errorf("the file as the command met it: %v, %v", i, err)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "j.prerun.txt"))
	if err != nil || string(b) != "one\ntwo\n" {
		t.Errorf("output %q, %v", b, err)
	}
	if o.Jobs[0].Read.Bytes != 64<<10 {
		t.Errorf("read %d bytes", o.Jobs[0].Read.Bytes)
	}

	o = runJobs(t, dir, "--name=j", "--filename=g", "--size=64k", "--rw=write", "--exec_prerun=exit 3")
	if o.code != 1 || !strings.Contains(o.err, "exec_prerun=exit 3: exit status 3") || o.Jobs[0].Write.IOs != 0 {
		t.Errorf("code %d, %d writes: %s", o.code, o.Jobs[0].Write.IOs, o.err)
	}
	o = runJobs(t, dir, "--name=j", "--filename=g", "--size=64k", "--rw=write", "--exec_postrun=exit 4")
	if o.code != 1 || !strings.Contains(o.err, "exec_postrun=exit 4: exit status 4") || o.Jobs[0].Write.Bytes != 64<<10 {
		t.Errorf("code %d, wrote %d: %s", o.code, o.Jobs[0].Write.Bytes, o.err)
	}
}

// untilThere is a context that ends when the file is there, or after half a minute.
func untilThere(t *testing.T, name string) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			if _, err := os.Stat(name); err == nil {
				return
			}
		}
	}()
	return ctx
}

// A command after the job has some seconds when the run is ended, to clean up.
func TestASignalEndsTheCommandAfter(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	begun := filepath.Join(dir, "begun")
	ctx := untilThere(t, begun)
	from := time.Now()
	o := runContext(ctx, t, dir, "--name=j", "--filename=f", "--size=64k", "--rw=write", "--exec_postrun=touch "+begun+"; sleep 1000")
	if took := time.Since(from); took > 60*time.Second || o.Jobs[0].Write.IOs == 0 || !strings.Contains(o.err, "killed: still running 5s after") {
		t.Errorf("ended after %v with %d writes: %s", took, o.Jobs[0].Write.IOs, o.err)
	}
}

// A command that does not end holds up neither the end of the run nor, with
// what it has started, anything after it.
func TestASignalEndsTheCommandBefore(t *testing.T) {
	dir := t.TempDir()
	begun := filepath.Join(dir, "begun")
	ctx := untilThere(t, begun)
	from := time.Now()
	o := runContext(ctx, t, dir, "--name=j", "--filename=f", "--size=64k", "--rw=write",
		"--exec_prerun=sleep 1000 & echo $! >"+begun+".pid; mv "+begun+".pid "+begun+"; wait")
	if took := time.Since(from); took > 60*time.Second {
		t.Errorf("ended after %v", took)
	}
	if n := o.Jobs[0].Write.IOs; n != 0 {
		t.Errorf("%d writes by a job that had not begun", n)
	}
	b, err := os.ReadFile(begun)
	if err != nil {
		t.Fatal(err)
	}
	pid := strings.TrimSpace(string(b))
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("what the command had started lives on: %s", stat)
		}
	}
}

// Blocks that are checked beside the job are checked as well as by it.
func TestVerifyAsync(t *testing.T) {
	dir := t.TempDir()
	for _, engine := range []string{"psync", "io_uring", "sendfile", "splice"} {
		t.Run(engine, func(t *testing.T) {
			name := filepath.Join(dir, engine)
			args := []string{
				"--name=j", "--filename=" + name, "--size=2m", "--bs=8k", "--ioengine=" + engine, "--iodepth=4", "--verify=sha256",
				"--verify_async=3", "--verify_async_cpus=0",
			}
			o := mustRun(t, dir, append(args, "--rw=randwrite", "--verify_backlog=16")...)
			if o.Jobs[0].Read.Bytes != 2<<20 {
				t.Errorf("read %d bytes back, want 2 MiB", o.Jobs[0].Read.Bytes)
			}
			mustRun(t, dir, append(args, "--rw=read")...)
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			wrong := []int{3*8192 + 1000, 250*8192 + 8191} // one early, one in the last blocks
			for _, at := range wrong {
				b[at] ^= 1
			}
			writeFile(t, name, string(b))
			for _, rw := range []string{"--rw=read", "--rw=randwrite --verify_only"} {
				o = runJobs(t, dir, append(append(args, strings.Fields(rw)...), "--verify_dump=1")...)
				for _, at := range wrong {
					if want := fmt.Sprintf("first wrong byte at %d", at); !strings.Contains(o.err, want) {
						t.Errorf("%s: want %q: %s", rw, want, o.err)
					}
					dump, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%s.%d.received", engine, at&^8191)))
					if err != nil || string(dump) != string(b[at&^8191:at&^8191+8192]) {
						t.Errorf("%s: dumped %d bytes, not what was read: %v", rw, len(dump), err)
					}
				}
				if o.code != 1 || o.Jobs[0].Error != 84 || o.Jobs[0].Read.Bytes != 2<<20 {
					t.Errorf("%s: exit code %d, error %d, %d bytes read", rw, o.code, o.Jobs[0].Error, o.Jobs[0].Read.Bytes)
				}
			}
			o = runJobs(t, dir, append(args, "--rw=read", "--verify_fatal=1")...)
			if o.code != 1 || !strings.Contains(o.err, "verify failed at offset 24576") {
				t.Errorf("verify_fatal: exit code %d: %s", o.code, o.err)
			}
		})
	}
	o := runJobs(t, dir, "--name=j", "--filename=x", "--size=64k", "--rw=write", "--verify=md5", "--verify_async=2", "--verify_async_cpus=1000")
	if o.code != 1 || !strings.Contains(o.err, "verify_async_cpus") {
		t.Errorf("a CPU that is not there: exit code %d: %s", o.code, o.err)
	}
}

// lockmem is held while the job runs, and given back.
func TestLockedMemory(t *testing.T) {
	dir := t.TempDir()
	locked := func(status string) (kib int) {
		_, after, _ := strings.Cut(status, "VmLck:")
		_, _ = fmt.Sscan(after, &kib)
		return kib
	}
	status := filepath.Join(dir, "status")
	pid := fmt.Sprint(os.Getpid())
	o := runJobs(t, dir, "--name=j", "--filename=f", "--size=64k", "--rw=write", "--lockmem=64k", "--exec_prerun=cat /proc/"+pid+"/status >"+status)
	if o.code != 0 {
		if strings.Contains(o.err, "lockmem=65536") {
			t.Skipf("RLIMIT_MEMLOCK: %s", o.err)
		}
		t.Fatal(o.err)
	}
	during, err := os.ReadFile(status)
	if err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	if d, a := locked(string(during)), locked(string(after)); d-a != 64 {
		t.Errorf("%d KiB locked while the job ran, %d afterwards: want 64 more", d, a)
	}
}
