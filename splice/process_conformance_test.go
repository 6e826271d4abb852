//go:build linux

package splice_test

import (
	"testing"

	"github.com/spliced-io/spliced/splice/conformance"
)

// TestHelperRelay is no test of its own: the relay process of the others is
// this binary with this test.
func TestHelperRelay(t *testing.T) {
	if !conformance.Serving() {
		return
	}
	if err := conformance.Serve(); err != nil {
		t.Fatal(err)
	}
}

func TestProcess(t *testing.T) {
	for _, e := range conformance.Engines() {
		t.Run(e.Name, func(t *testing.T) { conformance.RunProcess(t, e, "TestHelperRelay") })
	}
}

// TestBulk is the long one: it is skipped by -short.
func TestBulk(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long")
	}
	for _, e := range conformance.Engines() {
		t.Run(e.Name, func(t *testing.T) { conformance.RunBulk(t, e, "TestHelperRelay", conformance.BulkSize) })
	}
}
