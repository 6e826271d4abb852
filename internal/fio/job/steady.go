package job

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A SteadyState is a criterion of steadystate=: of what, whether its slope or
// its deviation, and the limit.
type SteadyState struct {
	Kind    string // iops, bw or lat; empty: none
	Slope   bool
	Limit   float64
	Percent bool // of the mean
}

func (s SteadyState) String() string {
	text := s.Kind
	if s.Slope {
		text += "_slope"
	}
	text += ":" + strconv.FormatFloat(s.Limit, 'f', -1, 64)
	if s.Percent {
		text += "%"
	}
	return text
}

func setSteady(o *Options, v string, _ bool) error {
	kind, limit, _ := strings.Cut(v, ":")
	var s SteadyState
	s.Kind, s.Slope = strings.CutSuffix(kind, "_slope")
	switch s.Kind {
	case "iops", "bw", "lat":
	default:
		return fmt.Errorf("%q is none of iops, iops_slope, bw, bw_slope, lat, lat_slope", kind)
	}
	digits, percent := strings.CutSuffix(limit, "%")
	f, err := strconv.ParseFloat(digits, 64)
	if err != nil || !(f > 0) || math.IsInf(f, 0) {
		return fmt.Errorf("%q: wants %s:number, or %s:number%%, above 0", v, kind, kind)
	}
	s.Limit, s.Percent = f, percent
	o.Steady = s
	return nil
}

// validateSteady: a window of fewer than two measurements is always steady.
func (o *Options) validateSteady() error {
	switch {
	case o.Steady.Kind == "":
		return nil
	case o.SteadyDuration == 0:
		return fmt.Errorf("steadystate=%s needs steadystate_duration", o.Steady)
	case o.SteadyInterval <= 0 || o.SteadyDuration/o.SteadyInterval < 2:
		return fmt.Errorf("steadystate_duration=%v is not two of steadystate_check_interval=%v", o.SteadyDuration, o.SteadyInterval)
	case o.SteadyDuration/o.SteadyInterval > 1<<16:
		return fmt.Errorf("steadystate_duration=%v is too long for measurements each %v", o.SteadyDuration, o.SteadyInterval)
	}
	return nil
}
