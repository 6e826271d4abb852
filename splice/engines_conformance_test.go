//go:build linux

package splice_test

import (
	"testing"

	"github.com/spliced-io/spliced/splice/conformance"
)

func TestConformance(t *testing.T) { conformance.Run(t, conformance.Engines()...) }
