//go:build unix

package netbench_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/spliced-io/spliced/internal/netbench"
)

func fifo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Waiting for a reader would be for ever.
func TestOutputToFIFO(t *testing.T) {
	path := fifo(t)
	o, err := netbench.OpenOutput(path)
	if !errors.Is(err, syscall.ENXIO) || !strings.Contains(err.Error(), "nobody reads it") {
		t.Fatalf("without a reader: %v, %v", o, err)
	}
	reader, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	const text = "to whom it may concern"
	commit(t, path, text)
	got := make([]byte, 100)
	if n, err := reader.Read(got); err != nil || string(got[:n]) != text {
		t.Errorf("read %q, %v", got[:n], err)
	}
}
