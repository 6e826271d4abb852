package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
)

// The test binary is also a horde of clients that mean no good: each process has
// its own limit of descriptors and its own source address.
const beHorde = "SPLICED_TEST_HORDE"

// runHorde is such a process; it prints what it has done when its input ends.
func runHorde(kind, target, source, count string) error {
	to, err := netip.ParseAddrPort(target)
	if err != nil {
		return err
	}
	from, err := netip.ParseAddr(source)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	over := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(over)
	}()
	if kind == "slow" {
		return hordeSlow(to, from, n, over)
	}
	return hordeFast(to, from, n, over)
}

func hordeSocket(to netip.AddrPort, from netip.Addr) (int, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	const bindAddressNoPort = 24 // IP_BIND_ADDRESS_NO_PORT: the port is chosen with the target
	if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_IP, bindAddressNoPort, 1); err != nil {
		_ = syscall.Close(fd)
		return -1, os.NewSyscallError("setsockopt", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: from.As4()}); err != nil {
		_ = syscall.Close(fd)
		return -1, os.NewSyscallError("bind", err)
	}
	return fd, nil
}

// hordeSlow holds n connections, each of which begins a TLS handshake and says
// one byte of it every ten seconds. Those that are sent away stay away.
func hordeSlow(to netip.AddrPort, from netip.Addr, n int, over chan struct{}) error {
	hello := clientHello("slow.test")
	fds, said := make([]int, 0, n), make([]int, n)
	for range n {
		fd, err := hordeSocket(to, from)
		if err != nil {
			return err
		}
		if err := syscall.SetNonblock(fd, true); err != nil {
			return err
		}
		if err := syscall.Connect(fd, &syscall.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil && !errors.Is(err, syscall.EINPROGRESS) {
			return os.NewSyscallError("connect", err)
		}
		fds = append(fds, fd)
		time.Sleep(50 * time.Microsecond)
	}
	fmt.Println("there")
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	turns := 0
	for {
		select {
		case <-over:
			left := 0
			for _, fd := range fds {
				if err, _ := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ERROR); err == 0 {
					left++
				}
			}
			fmt.Println("done", left)
			return nil
		case <-tick.C:
			for i := turns * n / 1000; i < (turns+1)*n/1000; i++ {
				_, _ = syscall.Write(fds[i], hello[said[i]:said[i]+1]) // EPIPE: sent away
				said[i] = min(said[i]+1, len(hello)-2)
			}
			turns = (turns + 1) % 1000
		}
	}
}

// hordeHeld is how many connections a client may have in these tests.
const hordeHeld = 50

// hordeFast holds as many connections as it may have, and has n threads connect,
// wait to be sent away, and come again.
func hordeFast(to netip.AddrPort, from netip.Addr, n int, over chan struct{}) error {
	var running sync.WaitGroup
	counts, failed := make([]int, n), make(chan error, n)
	for range hordeHeld {
		fd, err := hordeSocket(to, from)
		if err != nil {
			return err
		}
		if err := syscall.Connect(fd, &syscall.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
			return os.NewSyscallError("connect", err)
		}
	}
	for i := range n {
		running.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				fd, err := hordeSocket(to, from)
				if err != nil {
					failed <- err
					return
				}
				_ = syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Sec: 2})
				if syscall.Connect(fd, &syscall.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}) == nil {
					_, _ = syscall.Read(fd, make([]byte, 1))
				}
				_ = syscall.Close(fd)
				counts[i]++
			}
		})
	}
	fmt.Println("there")
	running.Wait()
	sum := 0
	for _, c := range counts {
		sum += c
	}
	fmt.Println("done", sum)
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// A horde is a running process of that kind.
type horde struct {
	*process
	stdin io.Closer
}

func startHorde(t *testing.T, kind, target, source string, n int) *horde {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, kind, target, source, strconv.Itoa(n))
	cmd.Env = append(os.Environ(), beHorde+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	return &horde{process: start(t, cmd), stdin: stdin}
}

// disperse ends it, and returns what it says of itself.
func (c *horde) disperse(t *testing.T) int {
	t.Helper()
	_ = c.stdin.Close()
	_, n, _ := strings.Cut(c.stdout.await(t, "done "), " ")
	v, err := strconv.Atoi(n)
	if err != nil {
		t.Fatal(err)
	}
	c.wait()
	return v
}

// clientHello returns the first message of a TLS client that asks for name.
func clientHello(name string) []byte {
	here, there := net.Pipe()
	go func() {
		_ = tls.Client(here, &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake()
	}()
	defer there.Close()
	b := make([]byte, 4096)
	n, _ := there.Read(b)
	return b[:n]
}

// A poll asks in the way of an honest client, one each interval, for some time.
type poll struct {
	took   []time.Duration
	failed int
}

func (p *poll) quantile(q float64) float64 {
	if len(p.took) == 0 {
		return -1
	}
	slices.Sort(p.took)
	return float64(p.took[min(len(p.took)-1, int(q*float64(len(p.took))))].Microseconds()) / 1e3
}

func pollHonest(addr string, hello []byte, interval, during time.Duration) *poll {
	p := &poll{}
	var mu sync.Mutex
	var clients sync.WaitGroup
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for begun := time.Now(); time.Since(begun) < during; {
		due := <-tick.C // the wait for a processor counts: that is what a client sees
		clients.Go(func() {
			err := converse(addr, hello)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				p.failed++
				return
			}
			p.took = append(p.took, time.Since(due))
		})
	}
	clients.Wait()
	return p
}

// converse sends a hello and wants it back.
func converse(addr string, hello []byte) error {
	c, err := net.DialTimeout("tcp", addr, 20*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write(hello); err != nil {
		return err
	}
	b := make([]byte, len(hello))
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if !bytes.Equal(b, hello) {
		return errors.New("other bytes come back")
	}
	return nil
}

// TestFloods measures what floods cost the proxy and its honest clients, beside
// HAProxy with the same limits, and prints the tables of docs/run.md. It asserts
// nothing but that honest clients are served. SPLICED_FLOODS is how many slow
// clients there are; how long each part takes, SPLICED_FLOOD_TIME (3s).
func TestFloods(t *testing.T) {
	slow, err := strconv.Atoi(os.Getenv("SPLICED_FLOODS"))
	if err != nil {
		t.Skip("SPLICED_FLOODS is not a number of slow clients: a measurement")
	}
	testnet.Need(t, "peers")
	during := 3 * time.Second
	if s := os.Getenv("SPLICED_FLOOD_TIME"); s != "" {
		if during, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	proxies := os.Getenv("SPLICED_FLOOD_PROXIES")
	if proxies == "" {
		proxies = "spliced,HAProxy"
	}
	hello := clientHello("honest.test")
	var table strings.Builder
	table.WriteString("| proxy | flood | resident, MB | CPU s/s | honest p50, ms | p99, ms | failed | |\n|---|---|---|---|---|---|---|---|\n")
	for _, proxy := range strings.Split(proxies, ",") {
		t.Run(proxy, func(t *testing.T) {
			server := echoServer(t)
			var addr, limited string
			var pid int
			if proxy == "HAProxy" {
				addr, limited, pid = startHAProxyFlooded(t, server)
			} else {
				d := runDaemon(t, floodConfig(server))
				addr, limited, pid = d.addr(t, "open"), d.addr(t, "limited"), d.cmd.Process.Pid
			}
			say := func(what string, begun cpuUse, p *poll, more string) {
				spent := cpuOf(t, pid).since(begun)
				fmt.Fprintf(&table, "| %s | %s | %.1f | %.2f | %.2f | %.2f | %d of %d | %s |\n",
					proxy, what, residentMB(t, pid), spent, p.quantile(0.5), p.quantile(0.99), p.failed, p.failed+len(p.took), more)
			}
			begun := cpuOf(t, pid)
			say("none", begun, pollHonest(addr, hello, 5*time.Millisecond, during), "")

			storm := startHorde(t, "fast", limited, "127.0.99.1", 4)
			storm.stdout.await(t, "there")
			begun = cpuOf(t, pid)
			started := time.Now()
			p := pollHonest(limited, hello, 5*time.Millisecond, during)
			took := time.Since(started)
			n := storm.disperse(t)
			say("connections over a limit", begun, p, fmt.Sprintf("%.0f/s", float64(n)/took.Seconds()))

			var hordes []*horde
			for i, left := 0, slow; left > 0; i++ {
				n := min(left, 18000)
				hordes = append(hordes, startHorde(t, "slow", addr, fmt.Sprintf("127.0.100.%d", i+1), n))
				left -= n
			}
			begun = cpuOf(t, pid)
			p = pollHonest(addr, hello, 5*time.Millisecond, during)
			say("slow clients coming", begun, p, "")
			for _, c := range hordes {
				c.stdout.await(t, "there")
			}
			begun = cpuOf(t, pid)
			p = pollHonest(addr, hello, 5*time.Millisecond, during)
			left := 0
			for _, c := range hordes {
				left += c.disperse(t)
			}
			say("slow clients there", begun, p, fmt.Sprintf("%d stay", left))
		})
	}
	t.Logf("%d slow clients\n%s", slow, &table)
}

func floodConfig(server string) string {
	return fmt.Sprintf(`
listeners:
  open: {address: 127.0.0.1:0, routes: {sni: [honest.test, slow.test], upstream: u}}
  limited: {address: 127.0.0.1:0, max_connections_per_client: %d, routes: {sni: [honest.test, slow.test], upstream: u}}
upstreams:
  u: {servers: %q}
`, hordeHeld, server)
}

func startHAProxyFlooded(t *testing.T, server string) (open, limited string, pid int) {
	t.Helper()
	open, limited = vacantAddr(t), vacantAddr(t)
	path := filepath.Join(t.TempDir(), "haproxy.cfg")
	text := fmt.Sprintf(`global
  maxconn 9464
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
frontend open
  bind %s
  tcp-request inspect-delay 10s
  tcp-request content accept if { req.ssl_hello_type 1 }
  use_backend u if { req.ssl_sni -i honest.test slow.test }
frontend limited
  bind %s
  stick-table type ip size 64k expire 10s store conn_cur
  tcp-request connection track-sc0 src
  tcp-request connection reject if { sc0_conn_cur gt %d }
  tcp-request inspect-delay 10s
  tcp-request content accept if { req.ssl_hello_type 1 }
  use_backend u if { req.ssl_sni -i honest.test slow.test }
backend u
  server s %s
`, open, limited, hordeHeld, server)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	pid = startForeign(t, nil, "haproxy", "-db", "-f", path)
	awaitListener(t, limited)
	return open, limited, pid
}

// cpuUse is what a process has used by a time.
type cpuUse struct {
	at   time.Time
	used time.Duration
}

// since returns CPU seconds a second.
func (c cpuUse) since(o cpuUse) float64 {
	return (c.used - o.used).Seconds() / c.at.Sub(o.at).Seconds()
}

func cpuOf(t *testing.T, pid int) cpuUse {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	user, errU := strconv.Atoi(fields[11])
	system, errS := strconv.Atoi(fields[12])
	if errU != nil || errS != nil {
		t.Fatal(errU, errS)
	}
	return cpuUse{time.Now(), time.Duration(user+system) * 10 * time.Millisecond}
}

func residentMB(t *testing.T, pid int) float64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	return float64(pages*os.Getpagesize()) / 1e6
}
