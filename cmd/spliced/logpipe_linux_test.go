package main

import (
	"bufio"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/spliced-io/spliced/internal/testnet"
)

// startPiped starts a relay whose standard output and error are pipes, of which
// the ends to read are returned. Nobody reads errs, and of out only the address.
func startPiped(t *testing.T, args ...string) (r *relay, out, errs *os.File) {
	t.Helper()
	cmd := command(t, append([]string{"relay"}, args...)...)
	pipe := func() (reader, writer *os.File) {
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = reader.Close() })
		return reader, writer
	}
	out, toOut := pipe()
	errs, toErrs := pipe()
	r = &relay{process: startWith(t, cmd, toOut, toErrs)}
	_ = toOut.Close()
	_ = toErrs.Close()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	r.addr = strings.TrimSpace(strings.TrimPrefix(line, "listening on "))
	return r, out, errs
}

// pass has a connection come and go.
func (r *relay) pass(t *testing.T) {
	t.Helper()
	c := r.dial(t)
	echo1(t, c, "x")
	_ = c.(*net.TCPConn).CloseWrite()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read %d bytes, %v; want the end", n, err)
	}
	_ = c.Close()
}

// Whoever reads the log goes away: connections have nothing to do with it.
func TestLogReaderGone(t *testing.T) {
	testnet.Leaks(t)
	r, out, errs := startPiped(t, "127.0.0.1:0", echoServer(t))
	c := r.dial(t)
	echo1(t, c, "before")
	_ = out.Close()
	_ = errs.Close()
	for range 3 {
		r.pass(t)
	}
	echo1(t, c, "after")
	_ = c.Close()
	r.signal(syscall.SIGTERM)
	if code := r.wait(); code != exitOK {
		t.Errorf("%v after SIGTERM, want exit code %d", r.cmd.ProcessState, exitOK)
	}
}

// Nobody reads the log: connections that are joined go on, and signals end the
// relay all the same.
func TestLogNobodyReads(t *testing.T) {
	for name, timeout := range map[string]string{"drained": "1h", "timeout": "50ms", "second signal": "1h"} {
		t.Run(name, func(t *testing.T) {
			testnet.Leaks(t)
			r, _, errs := startPiped(t, "--drain-timeout", timeout, "127.0.0.1:0", echoServer(t))
			shrinkPipe(t, errs)
			c := r.dial(t)
			for range logQueue + 64 { // more lines than the queue and a page hold
				r.pass(t)
			}
			echo1(t, c, "x")
			r.signal(syscall.SIGTERM)
			eventually(t, func() error { // it drains
				late, err := net.Dial("tcp", r.addr)
				if err == nil {
					_ = late.Close()
					return errors.New("still accepting")
				}
				return nil
			})
			switch name {
			case "drained":
				echo1(t, c, "y")
				_ = c.Close()
			case "second signal":
				echo1(t, c, "y")
				r.signal(syscall.SIGTERM)
			}
			if code := r.wait(); code != exitOK {
				t.Errorf("%v, want exit code %d", r.cmd.ProcessState, exitOK)
			}
		})
	}
}

// shrinkPipe has a pipe hold as little as the kernel allows.
func shrinkPipe(t *testing.T, f *os.File) {
	t.Helper()
	if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), 1031 /* F_SETPIPE_SZ */, 4096); errno != 0 {
		t.Fatal(errno)
	}
}
