package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
)

// The settings that both proxies are given.
const (
	compareConnect  = 300 * time.Millisecond // for a connect
	compareInterval = 200 * time.Millisecond // between checks, and for each
	compareBefore   = 300 * time.Millisecond
	compareOutage   = 1500 * time.Millisecond
	compareAfter    = 1200 * time.Millisecond // watched after the server is well again
	compareEvery    = 10 * time.Millisecond   // a client comes
	compareWait     = 5 * time.Second         // it waits at most
	compareCalm     = 100 * time.Millisecond  // who is served later was disturbed
)

// TestFailoverBesideHAProxy measures what clients see of a failing server, with
// the same settings, in as many rounds as SPLICED_FAILOVER says, and prints the
// table of docs/failover.md: a measurement, which asserts nothing.
func TestFailoverBesideHAProxy(t *testing.T) {
	rounds, err := strconv.Atoi(os.Getenv("SPLICED_FAILOVER"))
	if err != nil {
		t.Skip("SPLICED_FAILOVER is not a number of rounds: a measurement")
	}
	testnet.Need(t, "peers")
	type proxy struct {
		name  string
		start func(t *testing.T, one, two string) (addr string)
	}
	proxies := []proxy{{"spliced", startSplicedBeside}, {"HAProxy", startHAProxyBeside}}
	seen := map[string][]outcome{}
	for round := range rounds {
		for _, how := range breakages {
			for i := range proxies {
				p := proxies[(i+round)%len(proxies)]
				t.Run(fmt.Sprintf("%d/%s/%s", round, how.name, p.name), func(t *testing.T) {
					seen[how.name+p.name] = append(seen[how.name+p.name], observe(t, how, p.start))
				})
			}
		}
	}
	var table strings.Builder
	table.WriteString("| server | proxy | clients with an error | clients disturbed | the last of them came after, ms | longest wait of one served, ms | back in use after, ms |\n|---|---|---|---|---|---|---|\n")
	for _, how := range breakages {
		for _, p := range proxies {
			fmt.Fprintf(&table, "| %s | %s |", how.name, p.name)
			for column := range len(outcome{}) {
				values := make([]int, 0, rounds)
				for _, o := range seen[how.name+p.name] {
					values = append(values, o[column])
				}
				slices.Sort(values)
				fmt.Fprintf(&table, " %d [%d–%d] |", values[len(values)/2], values[0], values[len(values)-1])
			}
			table.WriteString("\n")
		}
	}
	t.Logf("%d rounds\n%s", rounds, &table)
}

// An outcome has the columns of the table: errors, disturbed, last, longest, back.
type outcome [5]int

// observe has clients come all the time, and one of two servers fail for a while.
func observe(t *testing.T, how breakage, start func(t *testing.T, one, two string) string) outcome {
	t.Helper()
	one, two := startBackend(t, "one", vacantAddr(t)), startBackend(t, "two", vacantAddr(t))
	addr := start(t, one.addr, two.addr)
	var mu sync.Mutex
	var visits []visit
	var clients sync.WaitGroup
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(compareEvery)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				clients.Go(func() {
					v := visitBackend(addr, compareWait)
					mu.Lock()
					defer mu.Unlock()
					visits = append(visits, v)
				})
			}
		}
	}()
	time.Sleep(compareBefore) // what is watched is what happens in these times
	failed := time.Now()
	mend := how.spoil(t, one)
	time.Sleep(compareOutage)
	mended := time.Now()
	mend()
	time.Sleep(compareAfter)
	close(stop)
	<-stopped
	clients.Wait()

	var o outcome
	back := time.Duration(-1)
	for _, v := range visits {
		since := v.begun.Sub(failed)
		if since < 0 && v.begun.Add(v.took).Before(failed) {
			continue
		}
		if v.begun.Before(mended) && (v.err != nil || v.took > compareCalm) {
			o[1]++
			o[2] = max(o[2], int(since.Milliseconds()))
		}
		switch {
		case v.err != nil:
			o[0]++
		case v.begun.Before(mended):
			o[3] = max(o[3], int(v.took.Milliseconds()))
		case v.name == "one" && (back < 0 || v.begun.Sub(mended) < back):
			back = v.begun.Sub(mended)
		}
	}
	o[4] = int(back.Milliseconds())
	return o
}

func startSplicedBeside(t *testing.T, one, two string) string {
	t.Helper()
	d := runDaemon(t, fmt.Sprintf(`
listeners:
  l: {address: 127.0.0.1:0, upstream: u}
upstreams:
  u:
    servers: [%q, %q]
    connect_timeout: %v
    attempts: 3
    health: {interval: %v, timeout: %[4]v, jitter: 0%%, rise: 2, fall: 3, send: health, expect: health}
    ejection: {failures: 5, time: 1s}
    on_down: close
`, one, two, compareConnect, compareInterval))
	return d.addr(t, "l")
}

func startHAProxyBeside(t *testing.T, one, two string) string {
	t.Helper()
	addr := vacantAddr(t)
	path := filepath.Join(t.TempDir(), "haproxy.cfg")
	text := fmt.Sprintf(`global
  maxconn 4000
defaults
  mode tcp
  timeout connect %dms
  timeout check %dms
  timeout client 1h
  timeout server 1h
  retries 2
  option redispatch 1
listen l
  bind %s
  balance roundrobin
  option tcp-check
  tcp-check send health
  tcp-check expect string health
  default-server check inter %[2]dms rise 2 fall 3 observe layer4 error-limit 5 on-error mark-down on-marked-down shutdown-sessions
  server one %[4]s
  server two %[5]s
`, compareConnect.Milliseconds(), compareInterval.Milliseconds(), addr, one, two)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	startForeign(t, nil, "haproxy", "-db", "-f", path)
	awaitListener(t, addr)
	return addr
}
