package fio_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/fio"
)

// outcome is what a run left behind.
type outcome struct {
	code int
	out  string
	err  string
	Jobs []jobResult
}

type jobResult struct {
	Name  string    `json:"jobname"`
	Error int       `json:"error"`
	Read  direction `json:"read"`
	Write direction `json:"write"`
	Trim  direction `json:"trim"`
	Zero  *struct {
		Shared   string `json:"file_pages"`
		User     string `json:"user_pages"`
		ToUser   string `json:"to_user"`
		PipeSize int    `json:"pipe_size"`
	} `json:"zero_copy"`
}

type direction struct {
	Bytes uint64 `json:"io_bytes"`
	IOs   uint64 `json:"total_ios"`
	Clat  struct {
		N    uint64            `json:"N"`
		Mean float64           `json:"mean"`
		Bins map[string]uint64 `json:"bins"`
	} `json:"clat_ns"`
}

// runJobs runs a command line in dir with JSON on standard output.
func runJobs(t *testing.T, dir string, args ...string) outcome {
	t.Helper()
	return runContext(t.Context(), t, dir, args...)
}

func runContext(ctx context.Context, t *testing.T, dir string, args ...string) outcome {
	t.Helper()
	var out, errs bytes.Buffer
	args = append([]string{"--output-format=json+", "--directory=" + dir, "--aux-path=" + dir}, args...)
	o := outcome{code: fio.Main(ctx, args, fio.Streams{Out: &out, Err: &errs, Version: "test"})}
	o.out, o.err = out.String(), errs.String()
	if o.out != "" {
		if err := json.Unmarshal(out.Bytes(), &o); err != nil {
			t.Fatalf("standard output is not one JSON document: %v\n%s", err, o.out)
		}
	}
	return o
}

func mustRun(t *testing.T, dir string, args ...string) outcome {
	t.Helper()
	o := runJobs(t, dir, args...)
	if o.code != 0 || o.err != "" {
		t.Fatalf("%s\nexit code %d: %s", strings.Join(args, " "), o.code, o.err)
	}
	return o
}

// tempDirs are directories on the file systems at hand.
func tempDirs(t *testing.T) map[string]string {
	t.Helper()
	dirs := map[string]string{"disk": t.TempDir()}
	if shm, err := os.MkdirTemp("/dev/shm", "spliced-fio-test"); err == nil {
		t.Cleanup(func() { os.RemoveAll(shm) })
		dirs["tmpfs"] = shm
	}
	return dirs
}

var fileEngines = []string{
	"sync", "psync", "pvsync", "mmap", "splice", "sendfile", "copy_file_range", "io_uring", "libaio", "posixaio",
}

// Each engine writes and reads back, in each order, with and without direct.
func TestEnginesVerifyWhatTheyWrite(t *testing.T) {
	for fs, dir := range tempDirs(t) {
		for _, engine := range fileEngines {
			for _, rw := range []string{"write", "randwrite", "randrw"} {
				for _, direct := range []string{"0", "1"} {
					t.Run(strings.Join([]string{fs, engine, rw, "direct=" + direct}, "/"), func(t *testing.T) {
						name := "f-" + engine + rw + direct
						o := mustRun(t, dir, "--name=j", "--filename="+name, "--size=1m", "--bs=16k", "--rw="+rw, "--direct="+direct,
							"--ioengine="+engine, "--iodepth=4", "--verify=crc32c", "--unlink=1")
						j := o.Jobs[0]
						if rw != "randrw" && (j.Write.Bytes != 1<<20 || j.Read.Bytes != 1<<20) {
							t.Errorf("wrote %d, read back %d, want 1 MiB each", j.Write.Bytes, j.Read.Bytes)
						}
						if rw == "randrw" && j.Write.Bytes+j.Read.Bytes != 1<<20+j.Write.Bytes {
							t.Errorf("wrote %d, read %d: does not add up", j.Write.Bytes, j.Read.Bytes)
						}
						var n uint64
						for _, c := range j.Read.Clat.Bins {
							n += c
						}
						if n != j.Read.IOs || j.Read.Clat.N != j.Read.IOs {
							t.Errorf("the histogram has %d reads, %d were made", n, j.Read.IOs)
						}
						if _, err := os.Stat(filepath.Join(dir, name)); !os.IsNotExist(err) {
							t.Errorf("unlink=1 left the file: %v", err)
						}
					})
				}
			}
		}
	}
}

func TestVerifyModesFindAFlippedByte(t *testing.T) {
	dir := t.TempDir()
	for _, mode := range []string{
		"md5", "crc64", "crc32", "crc32c", "crc32c-intel", "crc16", "crc7", "sha1", "sha256", "sha512", "sha3-224",
		"sha3-256", "sha3-384", "sha3-512", "xxhash", "meta", "pattern", "pattern_hdr",
	} {
		for _, engine := range []string{"psync", "splice"} {
			t.Run(mode+"/"+engine, func(t *testing.T) {
				job := []string{
					"--name=j", "--filename=v", "--size=256k", "--bs=8k", "--ioengine=" + engine, "--verify=" + mode,
					"--verify_pattern=0xdeadbeef%o", "--verify_interval=4k",
				}
				if mode != "pattern" && mode != "pattern_hdr" {
					job = append(job[:6], job[7:]...) // random data
				}
				mustRun(t, dir, append(job, "--rw=randwrite")...)
				mustRun(t, dir, append(job, "--rw=read")...)
				mustRun(t, dir, append(job, "--rw=randwrite", "--verify_only")...)

				name := filepath.Join(dir, "v")
				b, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				at := 5*4096 + 3000
				if mode == "meta" {
					at = 5*4096 + 17 // only headers are checked
				}
				b[at] ^= 0x40
				if err := os.WriteFile(name, b, 0o600); err != nil {
					t.Fatal(err)
				}
				o := runJobs(t, dir, append(job, "--rw=read", "--verify_fatal=1")...)
				want := fmt.Sprintf("verify failed at offset %d", 5*4096)
				if o.code != 1 || !strings.Contains(o.err, want) || !strings.Contains(o.err, name) || o.Jobs[0].Error != 84 {
					t.Errorf("exit code %d, error %d: %s; want %q in %s", o.code, o.Jobs[0].Error, o.err, want, name)
				}
				if exact := fmt.Sprintf("first wrong byte at %d", at); mode == "crc32c" && !strings.Contains(o.err, exact) {
					t.Errorf("%s; want %q", o.err, exact)
				}
			})
		}
	}
}

// A job that only verifies has its files open for reading, and may have nothing
// else.
func TestVerifyOnlyReads(t *testing.T) {
	for _, engine := range []string{"sync", "psync", "pvsync", "mmap", "splice", "sendfile", "copy_file_range", "libaio", "posixaio", "io_uring"} {
		t.Run(engine, func(t *testing.T) {
			dir := t.TempDir()
			args := []string{"--name=j", "--filename=v", "--size=256k", "--rw=randwrite", "--ioengine=" + engine, "--verify=crc32c"}
			mustRun(t, dir, args...)
			o := mustRun(t, dir, append(args, "--verify_only", "--loops=2")...)
			if d := o.Jobs[0]; d.Read.Bytes != 2*256<<10 {
				t.Errorf("%d bytes were read, want twice 256 KiB", d.Read.Bytes)
			}
		})
	}
}

// S1: fio's splice engine reads for ever when the file is cut under it.
func TestATruncatedFileEndsTheJob(t *testing.T) {
	dir := t.TempDir()
	for _, engine := range fileEngines {
		t.Run(engine, func(t *testing.T) {
			name := filepath.Join(dir, "cut")
			if err := os.WriteFile(name, make([]byte, 1<<20), 0o600); err != nil {
				t.Fatal(err)
			}
			done := make(chan outcome, 1)
			lines, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer lines.Close()
			go func() {
				var errs bytes.Buffer
				code := fio.Main(t.Context(), []string{
					"--output-format=ndjson", "--status-interval=0.02", "--name=j", "--filename=" + name, "--size=1m", "--bs=64k",
					"--rw=read", "--time_based", "--runtime=60", "--ioengine=" + engine,
				}, fio.Streams{Out: w, Err: &errs})
				w.Close()
				done <- outcome{code: code, err: errs.String()}
			}()
			// The first line says that the job is reading.
			if _, err := lines.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(name, 4096); err != nil {
				t.Fatal(err)
			}
			go func() { // the rest must not block the job
				buf := make([]byte, 4096)
				for {
					if _, err := lines.Read(buf); err != nil {
						return
					}
				}
			}()
			select {
			case o := <-done:
				if o.code != 1 || !strings.Contains(o.err, "input/output error") || !strings.Contains(o.err, name) {
					t.Errorf("exit code %d: %s; want an I/O error of %s", o.code, o.err, name)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("the job goes on reading a file that has ended")
			}
		})
	}
}

func TestASignalEndsTheJobWithItsResults(t *testing.T) {
	dir := t.TempDir()
	for _, engine := range []string{"splice", "psync", "io_uring", "null"} {
		// The job has to have begun, which takes longer on a busy machine.
		for after := 100 * time.Millisecond; ; after *= 2 {
			ctx, cancel := context.WithCancel(t.Context())
			began := time.Now()
			stop := time.AfterFunc(after, cancel)
			o := runContext(ctx, t, dir, "--name=j", "--size=1m", "--rw=randread", "--time_based", "--runtime=60", "--ioengine="+engine)
			took := time.Since(began)
			stop.Stop()
			cancel()
			idle := o.code == 128 && len(o.Jobs) == 1 && o.Jobs[0].Read.IOs == 0
			if idle && after < 10*time.Second {
				continue
			}
			if o.code != 128 || idle || len(o.Jobs) != 1 || took > 40*time.Second {
				t.Errorf("%s: exit code %d after %v, %s", engine, o.code, took, o.err)
			}
			break
		}
	}
}

// freePort is below those that the kernel gives to connections: one of these might be
// given away before the job listens.
func freePort(t *testing.T) string {
	t.Helper()
	for range 1000 {
		port := strconv.Itoa(10000 + rand.IntN(20000))
		if ln, err := net.Listen("tcp4", ":"+port); err == nil {
			_ = ln.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return ""
}

// S2, S3, S4: fio's netsplice stops at 64 KiB blocks and sends wrong data, and
// its net engine loses bytes.
func TestNetworkEnginesMoveEveryByte(t *testing.T) {
	dir := t.TempDir()
	for _, engine := range []string{"net", "netsplice"} {
		for _, protocol := range []string{"tcp", "unix"} {
			for _, bs := range []string{"4k", "64k", "65000", "128k", "1m"} {
				for _, verify := range []string{"", "crc32c", "md5"} {
					t.Run(strings.Join([]string{engine, protocol, bs, "verify=" + verify}, "/"), func(t *testing.T) {
						common := []string{"--ioengine=" + engine, "--protocol=" + protocol, "--bs=" + bs, "--size=32m"}
						if protocol == "unix" {
							common = append(common, "--hostname="+filepath.Join(t.TempDir(), "s"))
						} else {
							common = append(common, "--port="+freePort(t))
						}
						if verify != "" {
							common = append(common, "--verify="+verify)
						}
						args := append(common, "--name=in", "--rw=read", "--listen", "--name=out", "--rw=write")
						if protocol == "tcp" {
							args = append(args, "--hostname=127.0.0.1")
						}
						o := mustRun(t, dir, args...)
						in, out := o.Jobs[0], o.Jobs[1]
						n, _ := strconv.Atoi(strings.NewReplacer("k", "", "m", "").Replace(bs))
						size := uint64(32 << 20)
						if bs == "65000" {
							size = 32 << 20 / uint64(n) * uint64(n) // whole blocks
						}
						if in.Read.Bytes != size || out.Write.Bytes != size {
							t.Errorf("received %d, sent %d, want %d", in.Read.Bytes, out.Write.Bytes, size)
						}
					})
				}
			}
		}
	}
}

func TestPingPong(t *testing.T) {
	o := mustRun(t, t.TempDir(), "--ioengine=net", "--port="+freePort(t), "--bs=1k", "--size=1m", "--pingpong",
		"--name=in", "--rw=read", "--listen", "--name=out", "--rw=write", "--hostname=127.0.0.1", "--nodelay=1")
	if o.Jobs[0].Read.Bytes != 1<<20 || o.Jobs[1].Write.Bytes != 1<<20 {
		t.Errorf("%+v", o.Jobs)
	}
}

// A peer that disconnects in the middle ends the sender with an error and
// its results.
func TestAPeerThatDisconnects(t *testing.T) {
	for _, engine := range []string{"net", "netsplice"} {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			conn, err := ln.Accept()
			if err == nil {
				_, _ = conn.Read(make([]byte, 100<<10))
				_ = conn.(*net.TCPConn).SetLinger(0)
				conn.Close()
			}
		}()
		port := strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)
		o := runJobs(t, t.TempDir(), "--ioengine="+engine, "--port="+port, "--hostname=127.0.0.1", "--bs=64k", "--size=1g", "--name=out", "--rw=write")
		ln.Close()
		if o.code != 1 || len(o.Jobs) != 1 || o.Jobs[0].Error == 0 || !strings.Contains(o.err, `job "out"`) {
			t.Errorf("%s: exit code %d: %s", engine, o.code, o.err)
		}
	}
}

// S5: errors are errors, with the right sign and the right errno.
func TestErrorsOfTheFileSystem(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		args  []string
		errno int
		say   string
	}{
		"missing directory":    {[]string{"--filename=/nonexistent/x", "--size=4k", "--rw=write"}, 2, "/nonexistent/x"},
		"missing file":         {[]string{"--filename=none", "--size=4k", "--rw=read", "--allow_file_create=0"}, 2, "none"},
		"no size":              {[]string{"--filename=none", "--rw=read"}, 22, "size"},
		"a directory":          {[]string{"--filename=.", "--size=4k", "--rw=write"}, 21, "is a directory"},
		"a full disk":          {[]string{"--filename=/dev/full", "--size=64k", "--rw=write"}, 28, "/dev/full"},
		"a full disk splice":   {[]string{"--filename=/dev/full", "--size=64k", "--rw=write", "--ioengine=splice"}, 0, "/dev/full"},
		"not a writable place": {[]string{"--directory=/sys/kernel", "--size=4k", "--rw=write"}, 0, "/sys/kernel/"},
		"no direct here":       {[]string{"--filename=/sys/kernel/notes", "--rw=read", "--bs=1", "--direct=1"}, 22, "/sys/kernel/notes"},
		"less than a block":    {[]string{"--size=4k", "--bs=8k", "--rw=write"}, 22, "4096 bytes"},
		"a log in no place":    {[]string{"--size=4k", "--rw=write", "--write_bw_log=/nonexistent/l"}, 2, "/nonexistent/l"},
		"unaligned direct":     {[]string{"--filename=d", "--size=64k", "--bs=1000", "--rw=write", "--direct=1"}, 22, "d at offset"},
	} {
		t.Run(name, func(t *testing.T) {
			o := runJobs(t, dir, append([]string{"--name=j"}, c.args...)...)
			if o.code != 1 || !strings.Contains(o.err, c.say) || !strings.Contains(o.err, `job "j"`) || strings.Contains(o.err, "panic") {
				t.Fatalf("exit code %d: %s", o.code, o.err)
			}
			if len(o.Jobs) != 1 || o.Jobs[0].Error <= 0 || c.errno != 0 && o.Jobs[0].Error != c.errno {
				t.Errorf("jobs %+v, want error %d", o.Jobs, c.errno)
			}
		})
	}
}

func TestEvidenceOfZeroCopy(t *testing.T) {
	for fs, dir := range tempDirs(t) {
		for _, engine := range []string{"splice", "sendfile", "copy_file_range"} {
			o := mustRun(t, dir, "--name=j", "--size=64k", "--rw=read", "--ioengine="+engine)
			z := o.Jobs[0].Zero
			if z == nil || z.Shared == "" || strings.HasPrefix(z.Shared, "unknown") {
				t.Errorf("%s on %s: %+v says nothing", engine, fs, z)
				continue
			}
			if engine == "splice" && (z.PipeSize < 4096 || z.User == "" || z.ToUser == "") {
				t.Errorf("%s on %s: %+v is incomplete", engine, fs, z)
			}
		}
		o := mustRun(t, dir, "--name=j", "--size=64k", "--rw=read", "--ioengine=splice", "--direct=1")
		if z := o.Jobs[0].Zero; !strings.HasPrefix(z.Shared, "copied") {
			t.Errorf("direct=1 on %s: %s", fs, z.Shared)
		}
	}
}

func TestTrim(t *testing.T) {
	dir := t.TempDir()
	o := mustRun(t, dir, "--name=j", "--filename=t", "--size=256k", "--rw=trim", "--bs=64k")
	if o.Jobs[0].Trim.Bytes != 256<<10 {
		t.Errorf("%+v", o.Jobs[0].Trim)
	}
	b, err := os.ReadFile(filepath.Join(dir, "t"))
	if err != nil || len(b) != 256<<10 || len(bytes.Trim(b, "\x00")) != 0 {
		t.Errorf("%d bytes, %d not zero, %v", len(b), len(bytes.Trim(b, "\x00")), err)
	}
	o = mustRun(t, dir, "--name=j", "--filename=t", "--size=256k", "--rw=randtrimwrite", "--ioengine=splice")
	if j := o.Jobs[0]; j.Trim.Bytes != 256<<10 || j.Write.Bytes != 256<<10 {
		t.Errorf("trimmed %d, wrote %d", j.Trim.Bytes, j.Write.Bytes)
	}
}

func TestRates(t *testing.T) {
	o := mustRun(t, t.TempDir(), "--name=j", "--size=1g", "--ioengine=null", "--rate_iops=500", "--runtime=1", "--time_based")
	if n := o.Jobs[0].Read.IOs; n < 450 || n > 550 {
		t.Errorf("%d I/Os in a second, want 500", n)
	}
	o = mustRun(t, t.TempDir(), "--name=j", "--size=1g", "--ioengine=null", "--rate=4m", "--bs=64k", "--rate_process=poisson", "--runtime=2", "--time_based")
	if n := o.Jobs[0].Read.Bytes; n < 5<<20 || n > 11<<20 {
		t.Errorf("%d bytes in two seconds, want 8 MiB", n)
	}
	o = runJobs(t, t.TempDir(), "--name=j", "--size=1g", "--ioengine=null", "--thinktime=100ms", "--rate_min=1m", "--rate_cycle=200", "--runtime=5")
	if o.code != 1 || !strings.Contains(o.err, "rate_min") {
		t.Errorf("exit code %d: %s", o.code, o.err)
	}
	o = runJobs(t, t.TempDir(), "--name=j", "--size=1m", "--rw=write", "--max_latency=1ns")
	if o.code != 1 || !strings.Contains(o.err, "max_latency") {
		t.Errorf("exit code %d: %s", o.code, o.err)
	}
}

func TestPlan(t *testing.T) {
	dir := t.TempDir()
	o := mustRun(t, dir, "--ioengine=null", "--size=1m", "--name=a", "--numjobs=3", "--group_reporting", "--name=b", "--stonewall", "--wait_for=a")
	if len(o.Jobs) != 2 || o.Jobs[0].Read.Bytes != 3<<20 || o.Jobs[1].Read.Bytes != 1<<20 {
		t.Errorf("%+v", o.Jobs)
	}
	o = mustRun(t, dir, "--ioengine=null", "--size=1m", "--name=long", "--time_based", "--runtime=60", "--name=short", "--exitall")
	if len(o.Jobs) != 2 {
		t.Errorf("%+v", o.Jobs)
	}
	o = runJobs(t, dir, "--name=w", "--rw=write", "--size=4k", "--readonly")
	if o.code == 0 || !strings.Contains(o.err, "readonly") {
		t.Errorf("exit code %d: %s", o.code, o.err)
	}
	o = runJobs(t, dir, "--name=w", "--wait_for=nobody", "--size=4k")
	if o.code == 0 || !strings.Contains(o.err, "nobody") {
		t.Errorf("exit code %d: %s", o.code, o.err)
	}
}
