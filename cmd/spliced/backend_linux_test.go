package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test binary is also a server that can break in every way: greet with its
// name and echo, on the address, until standard input tells it to do otherwise.
const beBackend = "SPLICED_TEST_BACKEND"

// How a backend behaves, by the words that standard input has.
const (
	backendServe  = "serve"  // greet and echo
	backendReset  = "reset"  // what it accepts, at once
	backendIgnore = "ignore" // accept nothing
	backendRefuse = "refuse" // do not listen
)

// A backend is such a process.
type backend struct {
	*process
	name, addr string
	stdin      io.Writer
	said       int // lines that it has answered
}

// startBackend starts one. Its address stays the same when it starts again.
func startBackend(t *testing.T, name, addr string) *backend {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, name, addr)
	cmd.Env = append(os.Environ(), beBackend+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{name: name, addr: addr, stdin: stdin, process: start(t, cmd)}
	b.stdout.await(t, backendServe)
	b.said = 1
	return b
}

// behave returns when the backend does.
func (b *backend) behave(t *testing.T, how string) {
	t.Helper()
	if _, err := fmt.Fprintln(b.stdin, how); err != nil {
		t.Fatal(err)
	}
	b.said++
	deadline := time.Now().Add(patience)
	for strings.Count(b.stdout.all(), "\n") < b.said {
		if time.Now().After(deadline) {
			t.Fatalf("the backend does not %s", how)
		}
		time.Sleep(time.Millisecond) // between two looks
	}
}

// runBackend is the process.
func runBackend(name, addr string) error {
	a, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return err
	}
	var ln *net.TCPListener
	var done chan struct{} // of the goroutine that accepts
	stop := func() {
		if done != nil {
			_ = ln.SetDeadline(time.Now())
			<-done
			_ = ln.SetDeadline(time.Time{})
			done = nil
		}
	}
	how := backendServe
	for input := bufio.NewScanner(os.Stdin); ; how = input.Text() {
		stop()
		if how == backendRefuse && ln != nil {
			_ = ln.Close()
			ln = nil
		}
		if how != backendRefuse && ln == nil {
			if ln, err = net.ListenTCP("tcp4", a); err != nil {
				return err
			}
		}
		if ln != nil {
			if err := setBacklog(ln, how); err != nil {
				return err
			}
		}
		if how == backendServe || how == backendReset {
			done = make(chan struct{})
			go acceptBackend(ln, name, how == backendReset, done)
		}
		fmt.Println(how)
		if !input.Scan() {
			return input.Err()
		}
	}
}

func acceptBackend(ln net.Listener, name string, reset bool, done chan struct{}) {
	defer close(done)
	for {
		c, err := ln.Accept()
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		if reset {
			_ = c.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
			continue
		}
		go func() {
			defer c.Close()
			_, _ = io.WriteString(c, name+"\n")
			_, _ = io.Copy(c, c)
		}()
	}
}

// ignoredQueue is the length of the queue of a backend that ignores it.
const ignoredQueue = 8

// setBacklog makes the queue of a listener that ignores it one that is soon full.
func setBacklog(ln *net.TCPListener, how string) error {
	n := syscall.SOMAXCONN
	if how == backendIgnore {
		n = ignoredQueue
	}
	raw, err := ln.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = syscall.Listen(int(fd), n) }); err != nil {
		return err
	}
	return os.NewSyscallError("listen", failed)
}

// A visit is what a client has met that connects, reads the greeting, and has
// some bytes sent back.
type visit struct {
	begun time.Time
	took  time.Duration
	name  string // of the backend
	err   error
}

func visitBackend(addr string, wait time.Duration) visit {
	v := visit{begun: time.Now()}
	v.name, v.err = greeting(addr, wait)
	v.took = time.Since(v.begun)
	return v
}

func greeting(addr string, wait time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	_ = c.SetDeadline(deadline)
	r := bufio.NewReader(c)
	name, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, "again\n"); err != nil {
		return "", err
	}
	if again, err := r.ReadString('\n'); err != nil || again != "again\n" {
		return "", fmt.Errorf("echo %s: %w", strconv.Quote(again), err)
	}
	return strings.TrimSuffix(name, "\n"), nil
}

// fillQueue connects to a backend that accepts nothing until its queue is full.
func fillQueue(t *testing.T, addr string) (empty func()) {
	t.Helper()
	var conns []net.Conn
	empty = func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}
	t.Cleanup(empty)
	// At once: who comes through a proxy meanwhile is in the queue too, and asking the kernel takes
	// milliseconds.
	for range ignoredQueue {
		c, err := net.DialTimeout("tcp", addr, 50*time.Millisecond)
		if err != nil {
			break
		}
		conns = append(conns, c)
	}
	eventually(t, func() error {
		n, err := waiting(addr)
		if err != nil || n > ignoredQueue { // the kernel takes one more
			return err
		}
		if c, err := net.DialTimeout("tcp", addr, time.Second); err == nil { // else it has just filled
			conns = append(conns, c)
		}
		return fmt.Errorf("%d connections wait at %s, want more than %d", n, addr, ignoredQueue)
	})
	return empty
}
