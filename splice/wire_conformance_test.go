//go:build linux

package splice_test

import (
	"os"
	"testing"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/splice/conformance"
)

// The rows with sessions that were handed over before anything else happens. With
// SPLICED_CONFORMANCE=full also with those that are handed over while they run, if they
// run long enough.
func TestWireConformance(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	engines := []conformance.Engine{conformance.Wire().Early()}
	if os.Getenv("SPLICED_CONFORMANCE") == "full" {
		engines = append(engines, conformance.Wire())
	}
	conformance.Run(t, engines...)
}
