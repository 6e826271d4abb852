package fio_test

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// diskBytes is how many bytes this process has had read from disks.
func diskBytes(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skip(err)
	}
	_, rest, _ := strings.Cut(string(b), "\nread_bytes: ")
	line, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.Atoi(line)
	if err != nil {
		t.Skipf("/proc/self/io: %v", err)
	}
	return n
}

// Each pass over a file, and the verification of one, reads it from the disk:
// what fits into memory would else be measured, or be right, in memory only.
func TestEachPassComesFromTheDisk(t *testing.T) {
	const size = 8 << 20
	dir := t.TempDir()
	read := func(args ...string) int {
		before := diskBytes(t)
		mustRun(t, dir, append([]string{"--name=j", "--filename=f", "--size=8m", "--bs=64k"}, args...)...)
		return diskBytes(t) - before
	}
	read("--rw=read") // makes the file
	if n := read("--rw=read"); n < size*3/4 {
		t.Skipf("one pass has read %d bytes from a disk: there is none here", n)
	}
	// Some pages may stay, since others have them in their hands.
	for _, args := range [][]string{
		{"--rw=read", "--loops=4"},
		{"--rw=randread", "--loops=4"},
		{"--rw=read", "--loops=4", "--ioengine=mmap"},
		{"--rw=randread", "--io_size=32m"},
		{"--rw=read", "--io_size=32m", "--ioengine=splice"},
	} {
		if n := read(args...); n < size*5/2 {
			t.Errorf("%v: four passes over %d bytes have read %d from the disk", args, size, n)
		}
	}
	if n := read("--rw=read", "--loops=4", "--invalidate=0"); n > size/2 {
		t.Errorf("invalidate=0: %d bytes were read from the disk", n)
	}
	for _, engine := range []string{"psync", "mmap", "splice"} {
		if n := read("--rw=write", "--verify=crc32c", "--ioengine="+engine); n < size*3/4 {
			t.Errorf("%s: the verification of %d bytes has read %d from the disk", engine, size, n)
		}
	}
}

// The queue is as full as iodepth says: one I/O is started for each that ends,
// unless iodepth_batch_complete_max allows more.
func TestDepthIsKept(t *testing.T) {
	level := func(args ...string) float64 {
		var o struct {
			Jobs []struct {
				Level map[string]float64 `json:"iodepth_level"`
			}
		}
		done := mustRun(t, t.TempDir(), append([]string{"--name=j", "--size=4m", "--rw=read", "--iodepth=16"}, args...)...)
		if err := json.Unmarshal([]byte(done.out), &o); err != nil {
			t.Fatal(err)
		}
		return o.Jobs[0].Level["16"]
	}
	for _, engine := range []string{"null", "libaio", "io_uring", "posixaio"} {
		if n := level("--ioengine=" + engine); n < 95 {
			t.Errorf("%s: at depth 16 for %.1f %% of the I/Os", engine, n)
		}
	}
	if n := level("--ioengine=null", "--iodepth_batch_complete_max=16"); n > 50 {
		t.Errorf("all fetched at once, and at depth 16 for %.1f %% of the I/Os", n)
	}
}

// A FIFO would hold open(2), which nothing ends.
func TestAPipeIsNoFile(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "p"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, rw := range []string{"read", "write"} {
		o := runJobs(t, dir, "--name=j", "--filename=p", "--size=4k", "--rw="+rw)
		if o.code != 1 || !strings.Contains(o.err, "p is a pipe") {
			t.Errorf("%s: exit code %d, %q", rw, o.code, o.err)
		}
	}
}

// A mapping needs the whole file, however little fallocate makes of it.
func TestMmapMakesItsFile(t *testing.T) {
	for _, how := range []string{"none", "keep", "native", "truncate"} {
		dir := t.TempDir()
		o := mustRun(t, dir, "--name=j", "--filename=f", "--ioengine=mmap", "--rw=write", "--size=1m", "--fallocate="+how, "--verify=md5")
		if j := o.Jobs[0]; j.Write.Bytes != 1<<20 || j.Read.Bytes != 1<<20 {
			t.Errorf("fallocate=%s: wrote %d bytes, read %d", how, j.Write.Bytes, j.Read.Bytes)
		}
	}
}

// silent listens, and takes connections whose bytes nobody reads or sends.
func silent(t *testing.T) (port string) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns = append(conns, c)
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
		for _, c := range conns {
			c.Close()
		}
	})
	_, port, _ = net.SplitHostPort(ln.Addr().String())
	return port
}

// A peer that does nothing does not keep a job beyond its runtime, and what it
// took until then counts.
func TestRuntimeOfANetworkJob(t *testing.T) {
	port := silent(t)
	for _, engine := range []string{"net", "netsplice"} {
		for _, rw := range []string{"read", "write"} {
			o := mustRun(t, t.TempDir(), "--name=j", "--ioengine="+engine, "--hostname=127.0.0.1", "--port="+port, "--rw="+rw,
				"--bs=1m", "--size=1g", "--time_based", "--runtime=300ms")
			if n := o.Jobs[0].Write.Bytes; (n > 0) != (rw == "write") {
				t.Errorf("%s %s: %d bytes", engine, rw, n)
			}
		}
	}
	// Nobody listens, and nobody connects.
	free := freePort(t)
	for _, args := range [][]string{{"--rw=write", "--hostname=127.0.0.1"}, {"--rw=read", "--listen"}} {
		o := runJobs(t, t.TempDir(), append(args, "--name=j", "--ioengine=net", "--port="+free, "--size=1m", "--runtime=300ms")...)
		if o.code != 1 || !strings.Contains(o.err, `job "j"`) {
			t.Errorf("%v: exit code %d, %q", args, o.code, o.err)
		}
	}
}

// A receiver that was told how much to receive has failed if less came.
func TestAPeerThatEndsEarly(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write(make([]byte, 100_000))
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c)
			c.Close()
		}
	}()
	receive := []string{"--name=j", "--rw=read", "--hostname=127.0.0.1", "--port=" + port, "--bs=64k"}
	for _, engine := range []string{"net", "netsplice"} {
		o := runJobs(t, t.TempDir(), append(receive, "--ioengine="+engine, "--size=1m")...)
		if o.code != 1 || !strings.Contains(o.err, "the peer ended after 100000 of 1048576 bytes") || o.Jobs[0].Read.Bytes != 100_000 {
			t.Errorf("%s: exit code %d, %q, %d bytes", engine, o.code, o.err, o.Jobs[0].Read.Bytes)
		}
		// Without a size the end is the peer's to choose.
		if o := mustRun(t, t.TempDir(), append(receive, "--ioengine="+engine)...); o.Jobs[0].Read.Bytes != 100_000 {
			t.Errorf("%s: %d bytes", engine, o.Jobs[0].Read.Bytes)
		}
	}
}

// As many I/Os as fio 3.33 makes.
func TestNumberOfIOs(t *testing.T) {
	for _, c := range []struct {
		args string
		ios  uint64
	}{
		{"--size=1m --rw=randread --percentage_random=30", 256},
		{"--size=1m --rw=read:4k", 256},   // only the hole reaches beyond the end: again
		{"--size=1m --rw=read:-8k", 256},  // the same backwards
		{"--size=1m --rw=read:2k", 171},   // 170 x 6k = 1020k, and 4k more
		{"--size=1m --rw=read:-4k", 256},  // backwards
		{"--size=128k --rw=read:512", 28}, // after the 28th 2k are left
	} {
		o := mustRun(t, t.TempDir(), append(strings.Fields(c.args), "--name=j", "--bs=4k")...)
		if n := o.Jobs[0].Read.IOs; n != c.ios {
			t.Errorf("%s: %d I/Os, want %d", c.args, n, c.ios)
		}
	}
}

// A file that was never written by a verifying job is wrong in each block, and
// is not told about block by block.
func TestManyMismatches(t *testing.T) {
	dir := t.TempDir()
	mustRun(t, dir, "--name=j", "--filename=f", "--size=1m", "--rw=write")
	for _, more := range []string{"--verify_fatal=0", "--continue_on_error=verify"} {
		o := runJobs(t, dir, "--name=j", "--filename=f", "--size=1m", "--rw=read", "--verify=crc32c", more)
		if lines := strings.Count(o.err, "\n"); lines < 10 || lines > 30 || !strings.Contains(o.err, "more errors, 256 in all") {
			t.Errorf("%s: %d lines:\n%s", more, lines, o.err)
		}
	}
}

func TestCreateOnlyIsReported(t *testing.T) {
	if o := mustRun(t, t.TempDir(), "--name=j", "--size=4k", "--rw=read", "--create_only=1"); len(o.Jobs) != 1 || o.Jobs[0].Read.IOs != 0 {
		t.Errorf("%+v", o.Jobs)
	}
}

// A direction that has to wait for its rate does not hold the other.
func TestRatesOfBothDirections(t *testing.T) {
	o := mustRun(t, t.TempDir(), "--name=j", "--size=1m", "--rw=randrw", "--rate_iops=50,200", "--time_based", "--runtime=1")
	if r, w := o.Jobs[0].Read.IOs, o.Jobs[0].Write.IOs; w < 2*r {
		t.Errorf("%d reads and %d writes at rates of 1 to 4", r, w)
	}
	o = mustRun(t, t.TempDir(), "--name=j", "--size=1m", "--rw=randrw", "--rate_iops=,20", "--time_based", "--runtime=1")
	if r, w := o.Jobs[0].Read.IOs, o.Jobs[0].Write.IOs; r < 10*w {
		t.Errorf("%d reads without a rate and %d writes with one", r, w)
	}
}
