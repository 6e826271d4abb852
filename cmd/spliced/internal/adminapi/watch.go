package adminapi

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/spliced-io/spliced/proxy"
)

// maxWatchers is how many may watch at a time: each has every session asked for its
// counts.
const maxWatchers = 32

// watch writes a snapshot, and then one each interval. Nothing is kept for who does
// not read: the next is made when the last was written, and after writeTime the
// connection is closed.
func (q *call) watch() (any, *Error) {
	interval, problem := q.duration("interval", defaultInterval, minInterval, maxInterval)
	if problem != nil {
		return nil, problem
	}
	busiest, problem := q.number("sessions", 0, 0, maxBusiest)
	if problem != nil {
		return nil, problem
	}
	a := q.api
	if a.watchers.Add(1) > maxWatchers {
		a.watchers.Add(-1)
		return nil, fault(TooManyWatchers, "%d watch already: want to wait until one of them ends", maxWatchers)
	}
	defer a.watchers.Add(-1)
	var meter *proxy.Meter
	if busiest > 0 {
		meter = a.server.NewMeter()
	}
	q.w.Header().Set("Content-Type", "application/jsonl")
	control := http.NewResponseController(q.w)
	lines := json.NewEncoder(q.w)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		_ = control.SetWriteDeadline(time.Now().Add(a.writeTime))
		err := lines.Encode(a.snapshot(meter, int(busiest)))
		if err == nil {
			err = control.Flush()
		}
		if err != nil {
			return streamed, nil // it has gone
		}
		select {
		case <-ticker.C:
		case <-q.Context().Done():
			return streamed, nil
		case <-a.stopped:
			return streamed, nil
		}
	}
}

func (a *API) snapshot(meter *proxy.Meter, busiest int) Snapshot {
	s := Snapshot{Time: time.Now(), Status: a.status(), Listeners: a.listeners(), Upstreams: a.upstreams()}
	if meter != nil {
		for _, c := range meter.Busiest(busiest) {
			s.Sessions = append(s.Sessions, BusySession{ViewSession(c.Conn), c.ToTarget, c.ToClient})
		}
	}
	return s
}
