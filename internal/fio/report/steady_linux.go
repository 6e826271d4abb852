package report

import (
	"fmt"
	"strings"

	"github.com/spliced-io/spliced/internal/fio/stat"
)

func steady(o *object, s *stat.Steady) {
	o.add("ss", s.Criterion)
	o.add("duration", int64(s.Duration.Seconds()))
	attained := 0
	if s.Attained {
		attained = 1
	}
	o.add("attained", attained)
	o.add("criterion", fmt.Sprintf("%f%s", s.Value, percentSign(s)))
	o.add("max_deviation", s.Deviation)
	o.add("slope", s.Slope)
	d := o.object("data")
	d.add("bw_mean", mean(s.BW))
	d.add("iops_mean", mean(s.IOPS))
	if strings.HasPrefix(s.Criterion, "lat") {
		d.add("lat_mean", mean(s.Lat))
		d.add("lat_ns", s.Lat)
	}
	d.add("iops", s.IOPS)
	d.add("bw", s.BW)
}

func normalSteady(b *strings.Builder, s *stat.Steady) {
	attained := "no"
	if s.Attained {
		attained = "yes"
	}
	fmt.Fprintf(b, "  steadystate  : attained=%s, bw=%dKiB/s, iops=%d, lat=%dns, %s is %.3f%s\n", attained,
		mean(s.BW), mean(s.IOPS), mean(s.Lat), s.Criterion, s.Value, percentSign(s))
}

func percentSign(s *stat.Steady) string {
	if s.Percent {
		return "%"
	}
	return ""
}

func mean(list []uint64) uint64 {
	var sum uint64
	for _, n := range list {
		sum += n
	}
	return sum / uint64(max(len(list), 1))
}
