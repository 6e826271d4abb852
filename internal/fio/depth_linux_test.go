package fio_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A job that has to wait for its rate must not hand out a buffer that is on the
// way: each block of the file is then what the job says it wrote.
func TestRatesKeepBuffersApart(t *testing.T) {
	for _, engine := range []string{"io_uring", "libaio", "posixaio"} {
		dir := t.TempDir()
		o := mustRun(t, dir, "--name=j", "--filename=f", "--size=4m", "--bs=4k", "--rw=randwrite", "--ioengine="+engine,
			"--iodepth=16", "--rate_iops=4000", "--verify=crc32c", "--verify_fatal=1", "--fallocate=none")
		if j := o.Jobs[0]; j.Write.Bytes != 4<<20 || j.Read.Bytes != 4<<20 || j.Write.IOs != 1024 {
			t.Errorf("%s: wrote %d in %d, read back %d, want 4 MiB each", engine, j.Write.Bytes, j.Write.IOs, j.Read.Bytes)
		}
		b, err := os.ReadFile(filepath.Join(dir, "f"))
		if err != nil {
			t.Fatal(err)
		}
		for off := 0; off < len(b); off += 4096 {
			if b[off] != 0xca || b[off+1] != 0xac {
				t.Fatalf("%s: the block at %d was not written", engine, off)
			}
		}
	}
}

// Blocks that end in the middle of what the engine moves at once, and a file
// whose end is no whole block, at a depth above 1: all is moved, nothing twice.
func TestShortTransfersAtDepth(t *testing.T) {
	for _, engine := range []string{"io_uring", "libaio", "posixaio"} {
		dir := t.TempDir()
		name := filepath.Join(dir, "f")
		if err := os.WriteFile(name, slices.Repeat([]byte{7}, 1<<20-1000), 0o600); err != nil {
			t.Fatal(err)
		}
		o := mustRun(t, dir, "--name=j", "--filename="+name, "--bs=64k", "--bs_unaligned", "--rw=read", "--ioengine="+engine, "--iodepth=8")
		if j := o.Jobs[0]; j.Read.Bytes != 1<<20-1000 {
			t.Errorf("%s: read %d bytes of %d", engine, j.Read.Bytes, 1<<20-1000)
		}
	}
}
