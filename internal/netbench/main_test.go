package netbench_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/netbench"
)

// roleArg has this test binary play a role of a run.
const roleArg = "netbench-role"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == roleArg {
		if err := netbench.RunRole(context.Background(), os.Args[2], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 3 && os.Args[1] == runArg {
		runUntilSignal(os.Args[2])
	}
	if len(os.Args) == 2 && os.Args[1] == sockmapArg {
		runSockmap()
	}
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-test.") {
		fmt.Fprintln(os.Stderr, "this is no relay")
		os.Exit(2)
	}
	// With the race detector each process would linger for a second at its end.
	os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	os.Exit(m.Run())
}

// runArg has this test binary measure until it is told to stop. The other
// argument is the topology.
const runArg = "netbench-run"

func runUntilSignal(topology string) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	o := netbench.DefaultOptions()
	o.Topology = topology
	o.Paths, o.Workloads = []string{netbench.PathNginx}, []string{netbench.WorkloadBulk}
	o.Duration = time.Minute
	o.Self = []string{self, roleArg}
	said := false
	o.OnProgress = func(p netbench.Progress) {
		if p.Rate > 0 && !said {
			said = true
			fmt.Println("measuring")
		}
	}
	_, err = netbench.Run(ctx, o)
	if errors.Is(err, context.Canceled) {
		fmt.Println("interrupted")
		os.Exit(0)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
