package netbench_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spliced-io/spliced/internal/netbench"
)

// sockmapArg has this test binary measure sockmaps, and print the results.
const sockmapArg = "netbench-sockmap"

func runSockmap() {
	o := netbench.DefaultSockmapOptions()
	o.Modes = []string{"tx-normal", "tx-pass", "rx-verdict-egress"}
	o.Rounds, o.Duration = 1, 10*time.Millisecond
	file, err := netbench.RunSockmap(context.Background(), o)
	if err == nil {
		err = netbench.WriteJSON(os.Stdout, file)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
