package report

import (
	"strings"
	"testing"

	"github.com/spliced-io/spliced/internal/fio/stat"
)

// One slow I/O among fast ones does not turn the least latency into 0, and the
// text is fio 3.33's.
func TestMomentsAreFios(t *testing.T) {
	for _, c := range []struct {
		values []uint64
		want   string
	}{
		{[]uint64{962, 20_055_123}, "    clat (nsec): min=962, max=20055k, "},
		{[]uint64{1833, 747_756}, "    clat (nsec): min=1833, max=747756, "},
		{[]uint64{2500, 700_000}, "    clat (usec): min=2, max=700, "},
		{[]uint64{3_000_000, 200_000_000}, "    clat (msec): min=3, max=200, "},
	} {
		var l stat.Latency
		for _, v := range c.values {
			l.Add(v)
		}
		var b strings.Builder
		if moments(&b, "clat", &l); !strings.HasPrefix(b.String(), c.want) {
			t.Errorf("%q, want %q", b.String(), c.want)
		}
	}
}
