package fio_test

import (
	"os"
	"strings"
	"testing"

	"github.com/spliced-io/spliced/internal/testnet"
)

// A disk that fills up ends the job with what it did, and leaves no file that
// was laid out in part.
func TestFullDisk(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		done bool // something was written by the job itself
	}{
		{"laying out", []string{"--rw=read"}, false},
		{"allocating", []string{"--rw=write"}, false},
		{"writing", []string{"--rw=write", "--fallocate=none"}, true},
		{"writing by splice", []string{"--rw=write", "--fallocate=none", "--ioengine=splice"}, true},
		{"writing deep", []string{"--rw=write", "--fallocate=none", "--ioengine=io_uring", "--iodepth=8"}, true},
	} {
		dir := testnet.FileSystem(t, "tmpfs")
		o := runJobs(t, dir, append([]string{"--name=j", "--size=400m", "--bs=1m"}, c.args...)...)
		if o.code != 1 || !strings.Contains(o.err, `job "j"`) || !strings.Contains(o.err, "no space left") || len(o.Jobs) != 1 || o.Jobs[0].Error != 28 {
			t.Errorf("%s: exit code %d, %s", c.name, o.code, o.err)
			continue
		}
		if n := o.Jobs[0].Write.Bytes; c.done != (n >= 250<<20) {
			t.Errorf("%s: %d bytes reported", c.name, n)
		}
		left, err := os.ReadDir(dir)
		if err != nil || c.done != (len(left) == 1) {
			t.Errorf("%s: %v is left, %v", c.name, left, err)
		}
	}
	dir := testnet.FileSystem(t, "tmpfs")
	o := mustRun(t, dir, "--name=j", "--size=1g", "--bs=1m", "--rw=write", "--fill_device=1", "--fallocate=none")
	if n := o.Jobs[0].Write.Bytes; n < 250<<20 {
		t.Errorf("fill_device: %d bytes", n)
	}
}
