package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A pipe is read like a file.
func TestPipe(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, err = w.WriteString(minimal)
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := (Reader{}).Load(fmt.Sprintf("/proc/self/fd/%d", r.Fd())); err != nil {
		t.Error(err)
	}
}

// Nobody waits for a pipe without a writer, nor for ever for a silent one.
func TestSilentPipe(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (Reader{}).Load(name); err == nil || !strings.Contains(err.Error(), "there is no listener") {
		t.Errorf("without a writer: %v", err)
	}
	if testing.Short() {
		t.Skip("waits for a silent writer")
	}
	w, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := (Reader{}).Load(name); err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("with a silent writer: %v", err)
	}
}
