package main

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
)

// TestFloods measures what floods cost the proxy and its honest clients, beside
// HAProxy with the same limits, and prints the tables of docs/run.md. It asserts
// nothing but that honest clients of the daemon are served. SPLICED_FLOODS is how
// many slow clients there are, 0 for connections over a limit instead;
// SPLICED_FLOOD_RATE how many come a second, SPLICED_FLOOD_ROUNDS how often each
// state is measured, SPLICED_FLOOD_PROXIES which proxies: a path is another build of
// this test, whose daemon is measured, and what follows a word is its environment.
func TestFloods(t *testing.T) {
	slow, err := strconv.Atoi(os.Getenv("SPLICED_FLOODS"))
	if err != nil {
		t.Skip("SPLICED_FLOODS is not a number of slow clients: a measurement")
	}
	testnet.Need(t, "peers")
	proxies := os.Getenv("SPLICED_FLOOD_PROXIES")
	if proxies == "" {
		proxies = "spliced,HAProxy"
	}
	rounds, rate := floodNumber(t, "SPLICED_FLOOD_ROUNDS", 8), floodNumber(t, "SPLICED_FLOOD_RATE", 8000)
	flooded := make([]*floodedProxy, 0, 2)
	server := plainEcho(t)
	for _, name := range strings.Split(proxies, ",") {
		f := &floodedProxy{t: t, name: name}
		if name == "HAProxy" {
			f.open, f.limited, f.pid = startHAProxyFlooded(t, server)
		} else {
			d := startDaemon(t, floodedDaemon(t, name), floodConfig(server), (*exec.Cmd).Start)
			f.open, f.limited, f.pid = d.addr(t, "open"), d.addr(t, "limited"), d.cmd.Process.Pid
		}
		f.target, f.slowTarget = f.limited, f.open
		if name == "aside" {
			f.target, f.slowTarget = startHolder(t, hordeHeld), startHolder(t, floodHeld)
		}
		flooded = append(flooded, f)
	}
	for range rounds {
		for _, f := range flooded {
			if slow == 0 {
				f.overLimit(rate)
			} else {
				f.slowClients(slow, rate)
			}
		}
	}
	var table strings.Builder
	table.WriteString("| proxy | | resident, MB | CPU s/s | machine s/s | honest p50, ms | p99, ms | p99 to quiet | failed | |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, f := range flooded {
		f.print(&table)
		if failed := f.failed(); failed > 0 && f.name != "HAProxy" {
			t.Errorf("%d honest clients were not served", failed)
		}
	}
	t.Logf("%d slow clients, %d/s come, %d rounds\n%s", slow, rate, rounds, &table)
}

// floodedDaemon is the command of a daemon that SPLICED_FLOOD_PROXIES names.
func floodedDaemon(t *testing.T, name string) *exec.Cmd {
	t.Helper()
	cmd := commandWithin(t, time.Hour, "run")
	words := strings.Fields(name)
	if filepath.IsAbs(words[0]) {
		cmd.Path = words[0]
	}
	cmd.Env = append(cmd.Env, words[1:]...)
	return cmd
}

func floodNumber(t *testing.T, name string, n int) int {
	t.Helper()
	if s := os.Getenv(name); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// A floodedProxy is measured in several states, in turns.
type floodedProxy struct {
	t             *testing.T
	name          string
	open, limited string // addresses
	// Where the floods go: to the same, or past the proxy.
	target, slowTarget string
	pid                int
	states             []*floodState
	quiet              float64 // the p99 of this round
}

// A floodState has a value of each round.
type floodState struct {
	name                     string
	resident, cpu, busy      []float64
	p50, p99, ratio, outcome []float64
	failed, polled           int
}

// honestRate is how many honest clients come a second.
const honestRate = 300

// measure asks as honest clients do. The state named "quiet" is what the others of
// the round are compared with.
func (f *floodedProxy) measure(name, addr string, during time.Duration) *floodState {
	f.t.Helper()
	i := slices.IndexFunc(f.states, func(s *floodState) bool { return s.name == name })
	if i < 0 {
		i = len(f.states)
		f.states = append(f.states, &floodState{name: name})
	}
	s := f.states[i]
	begun, machine := cpuOf(f.t, f.pid), cpuOfAll(f.t)
	p := pollHonest(f.t, addr, honestRate, during)
	s.cpu = append(s.cpu, cpuOf(f.t, f.pid).since(begun))
	s.busy = append(s.busy, cpuOfAll(f.t).since(machine))
	s.resident = append(s.resident, residentMB(f.t, f.pid))
	s.p50, s.p99 = append(s.p50, p.quantile(0.5)), append(s.p99, p.quantile(0.99))
	if name == "quiet" {
		f.quiet = p.quantile(0.99)
	}
	s.ratio = append(s.ratio, p.quantile(0.99)/f.quiet)
	s.failed += p.Failed
	s.polled += p.Failed + len(p.Took)
	return s
}

// overLimit is a round of clients that have all the connections that they may
// have, and come for more.
func (f *floodedProxy) overLimit(rate int) {
	const during = 1500 * time.Millisecond
	f.measure("quiet", f.limited, during)
	begun := time.Now()
	storm := startHorde(f.t, hordeSpec{Kind: "over", Target: netip.MustParseAddrPort(f.target), Source: netip.MustParseAddr("127.0.99.1"), Rate: rate})
	storm.stdout.await(f.t, "there")
	s := f.measure("over a limit", f.limited, during)
	s.outcome = append(s.outcome, float64(storm.disperse(f.t))/time.Since(begun).Seconds())
}

// slowClients is a round of clients that come, from several processes, and stay.
func (f *floodedProxy) slowClients(slow, rate int) {
	f.measure("quiet", f.open, 3*time.Second)
	processes := (slow + 17999) / 18000
	var hordes []*horde
	for i := range processes {
		hordes = append(hordes, startHorde(f.t, hordeSpec{
			Kind: "slow", Target: netip.MustParseAddrPort(f.slowTarget), Source: netip.AddrFrom4([4]byte{127, 0, 100, byte(i + 1)}),
			Count: slow / processes, Rate: rate / processes,
		}))
	}
	f.measure("slow clients come", f.open, time.Duration(slow)*time.Second/time.Duration(rate)-500*time.Millisecond)
	for _, h := range hordes {
		h.stdout.await(f.t, "there")
	}
	s := f.measure("they are there", f.open, 3*time.Second)
	left := 0
	for _, h := range hordes {
		left += h.disperse(f.t)
	}
	s.outcome = append(s.outcome, float64(left))
}

func (f *floodedProxy) failed() (n int) {
	for _, s := range f.states {
		n += s.failed
	}
	return n
}

func (f *floodedProxy) print(w io.Writer) {
	for _, s := range f.states {
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s | %s | %d of %d | %s |\n", f.name, s.name,
			spread(s.resident, 1), spread(s.cpu, 2), spread(s.busy, 2), spread(s.p50, 2), spread(s.p99, 2), spread(s.ratio, 2), s.failed, s.polled, spread(s.outcome, 0))
	}
}

// spread is the median and the range.
func spread(values []float64, digits int) string {
	if len(values) == 0 {
		return ""
	}
	v := slices.Sorted(slices.Values(values))
	median := (v[(len(v)-1)/2] + v[len(v)/2]) / 2
	return fmt.Sprintf("%.*f [%.*f–%.*f]", digits, median, digits, v[0], digits, v[len(v)-1])
}

// floodHeld is how many connections the proxies of these tests may have, and hold.
const floodHeld = 9464

// startHolder returns the address of a server that holds so many connections.
func startHolder(t *testing.T, n int) string {
	t.Helper()
	h := startHorde(t, hordeSpec{Kind: "holder", Target: netip.MustParseAddrPort("127.0.0.1:0"), Count: n})
	t.Cleanup(func() { h.disperse(t) })
	const prefix = "holds at "
	return strings.TrimPrefix(h.stdout.await(t, prefix), prefix)
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
  maxconn %d
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
`, floodHeld, open, limited, hordeHeld, server)
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

// cpuOfAll is what the machine has used.
func cpuOfAll(t *testing.T) cpuUse {
	t.Helper()
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	var user, nice, system, idle, wait, irq, softirq int
	if _, err := fmt.Sscanf(line, "cpu %d %d %d %d %d %d %d", &user, &nice, &system, &idle, &wait, &irq, &softirq); err != nil {
		t.Fatal(err)
	}
	return cpuUse{time.Now(), time.Duration(user+nice+system+irq+softirq) * 10 * time.Millisecond}
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
