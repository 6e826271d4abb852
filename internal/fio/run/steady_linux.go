package run

import (
	"math"
	"sync"
	"time"

	"github.com/spliced-io/spliced/internal/fio/stat"
)

// steady watches a job, or with group_reporting a group, and ends it when it
// has reached a steady state: when the measurements of the last
// steadystate_duration differ, or drift, by less than the limit.
type steady struct {
	members []*worker
	found   *stat.Steady // all members' results refer to it
	points  []steadyPoint
	last    Figures
	lastAt  time.Time
	from    time.Time // collection begins
}

type steadyPoint struct{ bw, iops, lat uint64 } // KiB/s, I/Os per second, mean ns

// watchSteady starts a goroutine for each job or group that has the option; end
// waits for them.
func (r *Run) watchSteady(workers []*worker) (end func()) {
	groups := map[int]*steady{}
	var list []*steady
	for _, w := range workers {
		if w.o.Steady.Kind == "" {
			continue
		}
		s := groups[w.st.Group]
		if s == nil || !w.o.GroupReporting {
			s = &steady{found: &stat.Steady{
				Criterion: w.o.Steady.String(), Percent: w.o.Steady.Percent, Duration: w.o.SteadyDuration,
			}}
			list = append(list, s)
			if w.o.GroupReporting {
				groups[w.st.Group] = s
			}
		}
		s.members = append(s.members, w)
		w.steady = s.found
	}
	quit := make(chan struct{})
	var wg sync.WaitGroup
	for _, s := range list {
		wg.Go(func() {
			t := time.NewTicker(s.members[0].o.SteadyInterval)
			defer t.Stop()
			for {
				select {
				case <-quit:
					return
				case now := <-t.C:
					if s.take(now) {
						for _, w := range s.members {
							w.ended.Store(true)
						}
						return
					}
				}
			}
		})
	}
	return func() {
		close(quit)
		wg.Wait()
	}
}

// take adds a measurement and says whether the state is steady.
func (s *steady) take(now time.Time) bool {
	var f Figures
	for _, w := range s.members {
		w.live.mu.Lock()
		for dir := range f.Bytes {
			f.Bytes[dir] += w.live.Bytes[dir]
			f.IOs[dir] += w.live.IOs[dir]
			f.LatSum[dir] += w.live.LatSum[dir]
		}
		w.live.mu.Unlock()
	}
	o := s.members[0].o
	last, lastAt := s.last, s.lastAt
	s.last, s.lastAt = f, now
	if f.IOs == [stat.Directions]uint64{} {
		return false // it has not begun to count
	}
	if s.from.IsZero() {
		s.from = now.Add(o.SteadyRamp)
		return false // the first interval is not whole
	}
	if lastAt.Before(s.from) {
		return false
	}
	s.points = append(s.points, pointBetween(&last, &f, now.Sub(lastAt).Seconds()))
	window := int(o.SteadyDuration / o.SteadyInterval)
	if len(s.points) > window {
		s.points = s.points[1:]
	}
	return s.judge(o.Steady.Kind, o.Steady.Slope, o.Steady.Limit, len(s.points) == window)
}

func pointBetween(a, b *Figures, seconds float64) steadyPoint {
	var bytes, ios, lat uint64
	for dir := range a.Bytes {
		bytes += b.Bytes[dir] - a.Bytes[dir]
		ios += b.IOs[dir] - a.IOs[dir]
		lat += b.LatSum[dir] - a.LatSum[dir]
	}
	return steadyPoint{
		bw: uint64(float64(bytes) / 1024 / seconds), iops: uint64(float64(ios) / seconds), lat: lat / max(ios, 1),
	}
}

// judge computes the criterion; only a whole window can attain it.
func (s *steady) judge(kind string, slope bool, limit float64, whole bool) bool {
	f := s.found
	f.BW, f.IOPS, f.Lat = f.BW[:0], f.IOPS[:0], f.Lat[:0]
	values := make([]float64, len(s.points))
	for i, p := range s.points {
		f.BW, f.IOPS, f.Lat = append(f.BW, p.bw), append(f.IOPS, p.iops), append(f.Lat, p.lat)
		values[i] = float64(map[string]uint64{"bw": p.bw, "iops": p.iops, "lat": p.lat}[kind])
	}
	if !whole {
		return false
	}
	mean, deviation, drift := spread(values)
	f.Deviation, f.Slope = deviation, drift
	f.Value = deviation
	if slope {
		f.Value = math.Abs(drift)
	}
	if f.Percent {
		f.Value = 100 * f.Value / mean
	}
	f.Attained = mean > 0 && f.Value < limit
	return f.Attained
}

// spread returns the mean of values, the largest distance from it, and the
// slope of the line through them (least squares) from one to the next.
func spread(values []float64) (mean, deviation, slope float64) {
	n := float64(len(values))
	var sum, weighted, x, xx float64
	for i, v := range values {
		sum += v
		weighted += float64(i) * v
		x += float64(i)
		xx += float64(i) * float64(i)
	}
	mean = sum / n
	for _, v := range values {
		deviation = max(deviation, math.Abs(v-mean))
	}
	return mean, deviation, (n*weighted - x*sum) / (n*xx - x*x)
}
