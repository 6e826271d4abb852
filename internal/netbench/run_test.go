package netbench_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/netbench"
	"github.com/spliced-io/spliced/internal/testnet"
)

// quickOptions measure everything once, on loopback.
func quickOptions(t *testing.T) netbench.Options {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o := netbench.DefaultOptions()
	o.Topology = netbench.TopologyLoopback
	o.Paths = []string{netbench.PathDirect, netbench.PathGoCopy}
	o.Workloads = netbench.Workloads()
	o.Rounds, o.Pairs = 1, 20
	o.Warmup, o.Duration = 20*time.Millisecond, 100*time.Millisecond
	o.Tool = "test"
	o.Self = []string{self, roleArg}
	o.Relay = []string{self, "no-such-relay"}
	return o
}

// run measures. A machine that has other things to do may leave a process without a processor for a
// whole round: the run says so then, and is repeated with rounds of twice the time.
func run(t *testing.T, o netbench.Options) *netbench.File {
	t.Helper()
	const most = 5 * time.Second // of a round
	for {
		file := runOnce(t, o)
		short := slices.ContainsFunc(file.Results, func(r netbench.Result) bool {
			return strings.Contains(r.Error, netbench.ErrOutside.Error())
		})
		if !short || 2*o.Duration > most {
			return file
		}
		t.Logf("%v was too short a round: %q", o.Duration, file.Failures())
		o.Duration *= 2
	}
}

func runOnce(t *testing.T, o netbench.Options) *netbench.File {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	file, err := netbench.Run(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestRunOnLoopback(t *testing.T) {
	testnet.Leaks(t)
	o := quickOptions(t)
	finished := make(map[[2]string]int)
	o.OnProgress = func(p netbench.Progress) {
		if p.Finished && p.Extra == "" {
			finished[[2]string{p.Path, p.Workload}]++
		}
	}
	file := run(t, o)
	requireFigures(t, file, o)
	runs := finished[[2]string{o.Paths[0], o.Workloads[0]}]
	for _, path := range o.Paths {
		for _, workload := range o.Workloads {
			if n := finished[[2]string{path, workload}]; n == 0 || n != runs {
				t.Errorf("progress told %d times that %s was measured on %s, in %d runs", n, workload, path, runs)
			}
		}
	}
}

func TestRunInNamespacesWithPeers(t *testing.T) {
	testnet.Need(t, "root", "netns", "peers")
	testnet.Leaks(t)
	o := quickOptions(t)
	o.Topology = netbench.TopologyNetns
	o.Paths = append(o.Paths,
		netbench.PathHAProxy, netbench.PathHAProxySplice, netbench.PathNginx, netbench.PathSocat)
	o.Workloads = []string{netbench.WorkloadBulk, netbench.WorkloadRR, netbench.WorkloadConn, netbench.WorkloadIdle}
	if testing.Short() {
		o.Workloads = o.Workloads[:1]
	}
	file := run(t, o)
	requireFigures(t, file, o)
	for _, p := range file.Peers {
		if p.Path != netbench.PathDirect && (p.Version == "" || len(p.Command) == 0) {
			t.Errorf("%s is not described: %+v", p.Path, p)
		}
	}
	for path, setting := range map[string]string{
		netbench.PathHAProxy:       "tune.bufsize 262144",
		netbench.PathHAProxySplice: "option splice-request",
	} {
		i := slices.IndexFunc(file.Peers, func(p netbench.Peer) bool { return p.Path == path })
		if i < 0 || !strings.Contains(file.Peers[i].Configuration, setting) {
			t.Errorf("the configuration of %s lacks %q", path, setting)
		}
	}
	for i := range file.Results {
		r := &file.Results[i]
		if r.Path == netbench.PathHAProxySplice && r.Workload == netbench.WorkloadBulk && (r.Pipes == nil || r.Pipes.Max == 0) {
			t.Errorf("haproxy did not splice: %+v", r.Pipes)
		}
	}
}

// requireFigures checks that every path gave every workload's main figure.
func requireFigures(t *testing.T, file *netbench.File, o netbench.Options) {
	t.Helper()
	if failures := file.Failures(); len(failures) > 0 {
		t.Fatal(strings.Join(failures, "\n"))
	}
	if want := len(o.Paths) * len(o.Workloads); len(file.Results) != want {
		t.Errorf("%d results, want %d", len(file.Results), want)
	}
	for i := range file.Results {
		r := &file.Results[i]
		figure, key, _ := r.Main()
		direct := r.Path == netbench.PathDirect
		if r.Workload == netbench.WorkloadIdle && direct {
			figure, key = r.KernelPerPair, "kernel_bytes_per_pair"
		}
		if figure == nil || len(figure.Samples) != o.Rounds {
			t.Errorf("%s, %s: %s is %+v, want %d samples", r.Path, r.Workload, key, figure, o.Rounds)
			continue
		}
		if !direct && r.Workload != netbench.WorkloadIdle && (r.RatioToDirect == nil || r.RatioToDirect.Median <= 0) {
			t.Errorf("%s, %s: ratio to direct is %+v", r.Path, r.Workload, r.RatioToDirect)
		}
		if !direct && r.Workload == netbench.WorkloadBulk && (r.ProxyCPU == nil || r.ProxyCPU.Median <= 0) {
			t.Errorf("%s: the proxy's processor time is %+v", r.Path, r.ProxyCPU)
		}
		if r.Latency != nil && (r.Latency.HDR == "" || len(r.Latency.Curve) == 0) {
			t.Errorf("%s, %s: no histogram", r.Path, r.Workload)
		}
		if !direct && r.Workload == netbench.WorkloadIdle && (r.FDsPerPair == nil || r.FDsPerPair.Median < 1.9) {
			t.Errorf("%s: %+v descriptors per pair", r.Path, r.FDsPerPair)
		}
	}
}

func TestBrokenPeersDoNotStopOthers(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a peer that does not listen")
	}
	testnet.Leaks(t)
	o := quickOptions(t)
	o.Rounds = 2
	o.Workloads = []string{netbench.WorkloadBulk}
	self := strings.Join(o.Self, " ")
	o.Proxies = []netbench.Proxy{
		{Name: "mute", Command: "exec sleep 100 # {listen} {target}"},
		{Name: "dead", Command: "echo this is why >&2; exit 3 # {listen} {target}"},
		// Ends while it is measured.
		{Name: "dying", Command: `echo '{"listen":"{listen}","target":"{target}"}' | (cat; sleep 0.4) | ` + self + ` gocopy`},
		// What it starts outlives it.
		{Name: "orphans", Command: "sleep 100 & sleep 100 & exit 0 # {listen} {target}"},
	}
	o.Duration = 600 * time.Millisecond
	for _, p := range o.Proxies {
		o.Paths = append(o.Paths, p.Name)
	}
	o.Paths = append(o.Paths, netbench.PathSockmap) // the relay of these options is no relay
	file := run(t, o)
	want := map[string]string{
		"mute":    "does not listen",
		"dead":    "exit status 3: this is why",
		"dying":   "dying ended",
		"orphans": "orphans ended: exit status 0",
	}
	for i := range file.Results {
		r := &file.Results[i]
		switch text, broken := want[r.Path]; {
		case broken && !strings.Contains(r.Error, text):
			t.Errorf("%s, %s: error %q does not say %q", r.Path, r.Workload, r.Error, text)
		case r.Path == netbench.PathSockmap && r.Missing == "":
			t.Errorf("%s is not reported as missing: %+v", r.Path, r)
		case !broken && r.Path != netbench.PathSockmap && (r.Error != "" || r.Rounds != 2):
			t.Errorf("%s, %s: %d rounds, error %q", r.Path, r.Workload, r.Rounds, r.Error)
		}
	}
	if len(file.Failures()) != len(want) {
		t.Errorf("failures: %q", file.Failures())
	}
}

// A command of the caller's is run where the caller is: its paths are relative to that.
func TestProxyRunsWhereWeAre(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a shell script")
	}
	testnet.Leaks(t)
	o := quickOptions(t)
	t.Chdir(t.TempDir())
	script := "#!/bin/sh\necho \"$1\" | (cat; exec sleep 100) | " + strings.Join(o.Self, " ") + " gocopy\n"
	if err := os.WriteFile("mine", []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	o.Workloads = []string{netbench.WorkloadBulk}
	o.Proxies = []netbench.Proxy{{Name: "mine", Command: `./mine '{"listen":"{listen}","target":"{target}"}'`}}
	o.Paths = []string{netbench.PathDirect, "mine"}
	requireFigures(t, run(t, o), o)
}

// TestProxyInASessionOfItsOwn has a proxy leave its process group: it is
// accounted for, and does not outlive its round.
func TestProxyInASessionOfItsOwn(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("sessions are followed on Linux only")
	}
	for _, cgroups := range []bool{true, false} {
		t.Run(fmt.Sprintf("control groups %t", cgroups), func(t *testing.T) {
			testnet.Leaks(t)
			o := quickOptions(t)
			if !cgroups {
				o.WithoutCgroups()
			}
			const trace = "98765.4321" // in the command line of a process that must not stay
			o.Workloads = []string{netbench.WorkloadBulk}
			o.Proxies = []netbench.Proxy{{
				Name: "away",
				Command: "setsid sleep " + trace + ` & echo '{"listen":"{listen}","target":"{target}"}' | (cat; sleep ` + trace + `) | setsid -w ` +
					strings.Join(o.Self, " ") + " gocopy",
			}}
			o.Paths = []string{netbench.PathDirect, "away"}
			file := run(t, o)
			requireFigures(t, file, o)
			commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
			if err != nil {
				t.Fatal(err)
			}
			for _, command := range commands {
				// Gone in the meantime is as good.
				if text, err := os.ReadFile(command); err == nil && bytes.Contains(text, []byte(trace)) {
					t.Errorf("left behind: %s: %q", command, text)
				}
			}
		})
	}
}

// TestSwitchesOfShortLivedProcesses measures a proxy that forks for each
// connection: what its processes did is in none of their files when they have
// ended, but counted.
func TestSwitchesOfShortLivedProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("one of several that start peers")
	}
	testnet.Need(t, "root", "peers")
	testnet.Leaks(t)
	o := quickOptions(t)
	o.Rounds = 2
	o.Paths, o.Workloads = []string{netbench.PathSocat}, []string{netbench.WorkloadConn}
	r := &run(t, o).Results[0]
	// It waits for the target's answer and for the end, at the least.
	const least = 2
	if r.SwitchesPerOp == nil || len(r.SwitchesPerOp.Samples) != 1 || r.SwitchesPerOp.Median < least {
		t.Errorf("%+v context switches a connection, want one sample of %d or more; error %q, notes %q",
			r.SwitchesPerOp, least, r.Error, r.Notes)
	}
}

func TestMissingPeerIsReported(t *testing.T) {
	testnet.Leaks(t)
	t.Setenv("PATH", t.TempDir())
	o := quickOptions(t)
	o.Workloads = []string{netbench.WorkloadBulk}
	o.Paths = []string{netbench.PathDirect, netbench.PathHAProxy, netbench.PathNginx, netbench.PathSocat}
	file := run(t, o)
	if len(file.Failures()) != 0 || len(file.Results) != len(o.Paths) {
		t.Errorf("failures %q, %d results", file.Failures(), len(file.Results))
	}
	for i, r := range file.Results {
		missing := r.Path != netbench.PathDirect
		if missing != (r.Missing != "") || missing != (file.Peers[i].Missing != "") {
			t.Errorf("%s: missing is %q and %q", r.Path, r.Missing, file.Peers[i].Missing)
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	topologies := []string{netbench.TopologyLoopback}
	if os.Geteuid() == 0 {
		topologies = append(topologies, netbench.TopologyNetns, netbench.TopologyLocal)
	}
	for _, topology := range topologies {
		t.Run(topology, func(t *testing.T) {
			if topology != netbench.TopologyLoopback {
				testnet.Need(t, "root", "netns")
			}
			testnet.Leaks(t)
			before := temporary(t)
			o := quickOptions(t)
			o.Topology = topology
			o.Paths = []string{netbench.PathGoCopy}
			o.Duration = time.Hour
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			o.OnProgress = func(p netbench.Progress) {
				if p.Rate > 0 {
					cancel() // in the middle of a measurement
				}
			}
			file, err := netbench.Run(ctx, o)
			if !errors.Is(err, context.Canceled) || file != nil {
				t.Errorf("got %+v, %v", file, err)
			}
			if after := temporary(t); after != before {
				t.Errorf("temporary files: %s, before %s", after, before)
			}
		})
	}
}

// temporary lists what runs of this process leave in the temporary directory.
func temporary(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(os.TempDir(), "spliced-bench-*"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(found, " ")
}

func TestValidate(t *testing.T) {
	for _, test := range []struct {
		change func(*netbench.Options)
		want   string
	}{
		{func(o *netbench.Options) { o.Topology = "star" }, `topology "star"`},
		{func(o *netbench.Options) { o.Paths = []string{"squid"} }, `path "squid"`},
		{func(o *netbench.Options) { o.Paths = nil }, "no path"},
		{func(o *netbench.Options) { o.Paths = []string{"direct", "direct"} }, `path "direct" is given twice`},
		{func(o *netbench.Options) { o.Workloads = []string{"http"} }, `workload "http"`},
		{func(o *netbench.Options) { o.Rounds = 0 }, "rounds 0"},
		{func(o *netbench.Options) { o.Duration = -time.Second }, "duration -1s"},
		{func(o *netbench.Options) { o.Warmup = -1 }, "warm-up"},
		{func(o *netbench.Options) { o.Streams = []int{1, 0} }, "streams 0"},
		{func(o *netbench.Options) { o.Streams = []int{1, 8, 1} }, "streams 1: given twice"},
		{func(o *netbench.Options) { o.Size = -1 }, "size -1"},
		{func(o *netbench.Options) { o.Size = 2 << 20 }, "size 2097152"},
		{func(o *netbench.Options) { o.Pairs = 0 }, "pairs 0"},
		{func(o *netbench.Options) { o.Rate = 0 }, "rate 0"},
		{func(o *netbench.Options) {
			o.Workloads, o.Rate, o.Duration, o.Streams = []string{"rr-open"}, 15, time.Second, []int{1, 16}
		}, "rate 15: want 16 or more"},
	} {
		o := quickOptions(t)
		test.change(&o)
		err := o.Validate()
		var usage *netbench.UsageError
		if !errors.As(err, &usage) || !usage.Usage() || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got %v, want a usage error with %q", err, test.want)
		}
	}
	o := quickOptions(t)
	if err := o.Validate(); err != nil {
		t.Error(err)
	}
}

func TestParseProxy(t *testing.T) {
	p, err := netbench.ParseProxy("mine=relay --x=y {listen} {target}")
	if err != nil || p.Name != "mine" || p.Command != "relay --x=y {listen} {target}" {
		t.Errorf("got %+v, %v", p, err)
	}
	for _, text := range []string{
		"", "mine", "=x {listen} {target}", "mine=x {listen}", "a,b={listen}{target}", "nginx={listen}{target}",
		"a\x1b[2J={listen}{target}", "a\xff={listen}{target}", strings.Repeat("a", 65) + "={listen}{target}",
	} {
		if p, err := netbench.ParseProxy(text); err == nil {
			t.Errorf("ParseProxy(%q) is %+v", text, p)
		}
	}
}

func TestRunSource(t *testing.T) {
	testnet.Leaks(t)
	o := quickOptions(t)
	o.Rounds = 2
	file, err := netbench.RunSource(t.Context(), "lan", startSink(t), o)
	if err != nil {
		t.Fatal(err)
	}
	if failures := file.Failures(); len(failures) > 0 {
		t.Fatal(failures)
	}
	for i := range file.Results {
		r := &file.Results[i]
		if figure, key, _ := r.Main(); r.Workload != netbench.WorkloadIdle && (figure == nil || len(figure.Samples) != 2) {
			t.Errorf("%s: %s is %+v", r.Workload, key, figure)
		}
	}
	for _, bad := range []string{"", "host", "host:0", ":7", "host:http"} {
		var usage *netbench.UsageError
		if _, err := netbench.RunSource(t.Context(), "lan", bad, o); !errors.As(err, &usage) {
			t.Errorf("target %q: %v", bad, err)
		}
	}
}
