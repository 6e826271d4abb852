package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
)

// The test binary is also a throng of clients, or a server of theirs: each process has its
// own limit of descriptors and its own address.
const beThrong = "SPLICED_TEST_THRONG"

// throngPatience is how long one step of a whole throng may take.
const throngPatience = 4 * time.Minute

// A throngAnswer is what a throng has done.
type throngAnswer struct {
	Conns    int           // that have done it
	P50, P99 time.Duration // of the exchanges
	Error    string        // the first
}

// noProbes has connections without keep-alive probes. Of 200,000 ends on one machine they come by the
// thousand in one tick, more than a processor's queue (net.core.netdev_max_backlog) has room for, and a
// SYN that is lost there is sent again with one of the next ticks, and lost again: ten times in 5 s, and
// connect(2) has failed (ETIMEDOUT).
const noProbes = -1

// runThrong is such a process: it serves at an address, or is the clients of one.
func runThrong(kind, addr, source string) error {
	if kind == "server" {
		lc := net.ListenConfig{KeepAlive: noProbes}
		ln, err := lc.Listen(context.Background(), "tcp", addr)
		if err != nil {
			return err
		}
		fmt.Println(ln.Addr())
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			_ = ln.Close()
		}()
		for {
			c, err := ln.Accept()
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			if err != nil {
				return err
			}
			go func() {
				defer c.Close()
				for { // io.Copy has a pipe for each
					var b [64]byte
					if _, err := io.ReadFull(c, b[:]); err != nil {
						return
					}
					if _, err := c.Write(b[:]); err != nil {
						return
					}
				}
			}()
		}
	}
	var conns []net.Conn
	out, in := json.NewEncoder(os.Stdout), bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var what string
		var n int
		if _, err := fmt.Sscan(in.Text(), &what, &n); err != nil {
			return err
		}
		var a throngAnswer
		var err error
		switch what {
		case "open":
			conns, err = openThrong(addr, source, n)
			a.Conns = len(conns)
		case "exchange":
			a, err = exchangeAll(conns[:min(n, len(conns))])
		case "ping-pong":
			a, err = exchangeAll(slices.Repeat(conns[:min(n, len(conns))], pingPong))
		case "end":
			for _, c := range conns {
				_ = c.(*net.TCPConn).CloseWrite()
			}
			for _, c := range conns {
				if rest, e := io.ReadAll(c); e != nil || len(rest) > 0 {
					err = errors.Join(err, fmt.Errorf("%d bytes at the end, %w", len(rest), e))
				} else {
					a.Conns++
				}
				_ = c.Close()
			}
		}
		if err != nil {
			a.Error, _, _ = strings.Cut(err.Error(), "\n")
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
	return in.Err()
}

func portLater(_, _ string, c syscall.RawConn) (err error) {
	if e := c.Control(func(fd uintptr) { err = choosePortLater(int(fd)) }); e != nil {
		return e
	}
	return err
}

// pingPong is how many exchanges with each connection there are in a row of few.
const pingPong = 200

// openThrong opens connections, each with one exchange.
func openThrong(addr, source string, n int) (conns []net.Conn, err error) {
	from := &net.TCPAddr{IP: net.ParseIP(source)}
	d := net.Dialer{Timeout: time.Minute, LocalAddr: from, Control: portLater, KeepAlive: noProbes}
	var mu sync.Mutex
	var wg sync.WaitGroup
	left := n
	for range 16 {
		wg.Go(func() {
			for {
				mu.Lock()
				if left == 0 || err != nil {
					mu.Unlock()
					return
				}
				left--
				mu.Unlock()
				c, e := d.Dial("tcp", addr)
				if e == nil {
					_, e = exchangeOnce(c)
				}
				mu.Lock()
				if e == nil {
					conns = append(conns, c)
				} else if err == nil {
					err = e
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return conns, err
}

func exchangeOnce(c net.Conn) (time.Duration, error) {
	var b [64]byte
	began := time.Now()
	_ = c.SetDeadline(began.Add(time.Minute))
	_, err := c.Write(b[:])
	if err == nil {
		_, err = io.ReadFull(c, b[:])
	}
	return time.Since(began), err
}

// exchangeAll has an exchange with one after the other.
func exchangeAll(conns []net.Conn) (a throngAnswer, err error) {
	took := make([]time.Duration, 0, len(conns))
	for _, c := range conns {
		d, e := exchangeOnce(c)
		if e != nil {
			err = errors.Join(err, e)
			continue
		}
		took = append(took, d)
	}
	slices.Sort(took)
	if a.Conns = len(took); a.Conns > 0 {
		a.P50, a.P99 = took[len(took)/2], took[len(took)*99/100]
	}
	return a, err
}

// A throng is such a process.
type throng struct {
	stdin   io.WriteCloser
	answers *bufio.Scanner
}

func startThrong(t *testing.T, ns *testnet.Namespace, args ...string) *throng {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), beThrong+"=1")
	cmd.Stderr = os.Stderr
	p := &throng{}
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.answers = bufio.NewScanner(stdout)
	if err := ns.Start(cmd); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(3*throngPatience, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() {
		_ = p.stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v", args, err)
		}
		watchdog.Stop()
	})
	return p
}

// line is what it says next.
func (p *throng) line(t *testing.T) string {
	t.Helper()
	if !p.answers.Scan() {
		t.Fatal("the throng says nothing:", p.answers.Err())
	}
	return p.answers.Text()
}

func (p *throng) do(t *testing.T, what string, n, want int) (a throngAnswer) {
	t.Helper()
	if _, err := fmt.Fprintln(p.stdin, what, n); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(p.line(t)), &a); err != nil {
		t.Fatal(err)
	}
	if a.Error != "" || a.Conns != want {
		t.Fatalf("%s: %d connections of %d: %s", what, a.Conns, want, a.Error)
	}
	return a
}

// counts reads the numbers of a page of metrics.
func counts(page string) map[string]float64 {
	all := make(map[string]float64)
	for line := range strings.Lines(page) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
			all[name], _ = strconv.ParseFloat(value, 64)
		}
	}
	return all
}

// resident is the memory of a process, in bytes.
func resident(t *testing.T, pid int) float64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if kb, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(kb), " kB"))
			if err != nil {
				t.Fatal(err)
			}
			return float64(n) * 1024
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// A daemon carries more connections than it may have descriptors: what is spliced has
// none. The relay may have 512; SPLICED_FLOWS says how many connections there are, 600
// else, and then the limit is that of the machine. What they cost is logged.
func TestMoreFlowsThanDescriptors(t *testing.T) {
	testnet.Need(t, "root", "netns", "bpf")
	testnet.Leaks(t)
	n, files := 600, "512"
	if many, err := strconv.Atoi(os.Getenv("SPLICED_FLOWS")); err == nil {
		n, files = many, ""
	}
	const each = 12500 // of one process, and of one server's ports
	c, err := testnet.NewChain()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	throngs := (n + each - 1) / each
	text := "log: {format: json}\nmetrics: 127.0.0.1:0\nlisteners:\n" +
		"  web: {address: \"" + testnet.AddrBA + ":0\", engine: wire, upstream: web}\nupstreams:\n  web:\n    servers:\n"
	for i := range throngs {
		server := startThrong(t, c.C, "server", fmt.Sprintf("10.85.0.%d:0", i+1), "")
		text += "      - " + server.line(t) + "\n"
	}
	cmd := commandWithin(t, 3*throngPatience, "run")
	cmd.Env = append(cmd.Env, openFiles+"="+files)
	d := startDaemon(t, cmd, text, c.B.Start)
	addr := d.addr(t, "web")
	client := &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return c.B.Dial(ctx, network, address)
		},
	}}
	url := parse(t, d.stderr.await(t, `"msg":"metrics"`))["url"].(string)
	metrics := func() map[string]float64 { return counts(get(t, client, url)) }
	// Sockets are let go a moment after the hand-over.
	carried := func(want int) {
		t.Helper()
		for end := time.Now().Add(throngPatience); ; time.Sleep(100 * time.Millisecond) {
			m := metrics()
			if m["spliced_wire_flows"] == float64(want) && m["process_open_fds"] < 100 {
				return
			} else if time.Now().After(end) {
				t.Fatalf("%v flows of %d, %v descriptors", m["spliced_wire_flows"], want, m["process_open_fds"])
			}
		}
	}

	clients := make([]*throng, throngs)
	for i := range clients {
		clients[i] = startThrong(t, c.A, "client", addr, fmt.Sprintf("10.84.0.%d", i+1))
	}
	// A few first: with the first one the program is loaded.
	const few = 10
	begin := startThrong(t, c.A, "client", addr, testnet.AddrA)
	begin.do(t, "open", few, few)
	carried(few)
	alone := begin.do(t, "ping-pong", few, few*pingPong).P50
	before, heap := resident(t, d.cmd.Process.Pid), metrics()["go_memstats_heap_alloc_bytes"]

	began := time.Now()
	for i, p := range clients {
		m := min(each, n-i*each)
		p.do(t, "open", m, m)
	}
	opened := time.Since(began)
	carried(few + n)
	after := metrics()
	t.Logf("%d connections opened in %v, spliced %v later", n, opened, time.Since(began)-opened)
	if failed := after["spliced_connections_failed_total"]; failed > 0 {
		t.Errorf("%v connections could not be joined", failed)
	}
	t.Logf("resident %.0f bytes a flow, of Go's heap %.0f; %v descriptors", (resident(t, d.cmd.Process.Pid)-before)/float64(n),
		(after["go_memstats_heap_alloc_bytes"]-heap)/float64(n), after["process_open_fds"])

	// Every one answers.
	for range 2 {
		var p50 []time.Duration
		for i, p := range clients {
			m := min(each, n-i*each)
			p50 = append(p50, p.do(t, "exchange", m, m).P50)
		}
		slices.Sort(p50)
		t.Logf("an exchange with each of them: p50 %v; with %d of them: %v; with %d alone: %v",
			p50[len(p50)/2], few, begin.do(t, "ping-pong", few, few*pingPong).P50, few, alone)
	}

	for i, p := range clients {
		m := min(each, n-i*each)
		p.do(t, "end", m, m)
	}
	begin.do(t, "end", few, few)
	carried(0)
	over := metrics()
	for end := time.Now().Add(throngPatience); over["spliced_connections_open"] > 0 && time.Now().Before(end); over = metrics() {
		time.Sleep(10 * time.Millisecond)
	}
	exchanges := 3*n + few*(1+3*pingPong)
	for _, name := range []string{
		`spliced_directions_ended_total{direction="to_client",reason="eof"}`,
		`spliced_directions_ended_total{direction="to_target",reason="eof"}`,
		`spliced_wire_handed_over_total`,
	} {
		if over[name] != float64(n+few) {
			t.Errorf("%s is %v, want %d", name, over[name], n+few)
		}
	}
	if got, want := over[`spliced_bytes_total{direction="to_client"}`], over[`spliced_bytes_total{direction="to_target"}`]; got != want || want != float64(64*exchanges) {
		t.Errorf("%v bytes to targets, %v to clients, want %d", want, got, 64*exchanges)
	}
	d.stop(t)
}
