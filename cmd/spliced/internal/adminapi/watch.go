package adminapi

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/spliced-io/spliced/proxy"
)

// maxWatchers is how many may watch at a time.
const maxWatchers = 32

// A surveyor has every session asked for its counts, for all who watch together.
type surveyor struct {
	server *proxy.Server

	mu   sync.Mutex
	last *proxy.Survey
}

// surveyShare bounds the share of the time that surveys take, whatever intervals are
// asked for.
const surveyShare = 20

// survey returns one that is not older than that, or an older one where others would
// come too often.
func (s *surveyor) survey(age time.Duration) *proxy.Survey {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil || time.Since(s.last.At) > max(age, surveyShare*s.last.Took) {
		s.last = s.server.Survey()
	}
	return s.last
}

// forget keeps nothing of connections that have ended.
func (s *surveyor) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = nil
}

// watch writes a snapshot, and then one each interval, as long as there is something
// new to tell. Nothing is kept for who does not read: the next is made when the last was
// written, and after writeTime the connection is closed.
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
	defer func() {
		if a.watchers.Add(-1) == 0 {
			a.surveyor.forget()
		}
	}()
	var meter proxy.Meter
	q.w.Header().Set("Content-Type", "application/jsonl")
	control := http.NewResponseController(q.w)
	lines := json.NewEncoder(q.w)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	var told *proxy.Survey
	for {
		// Those who watch at the same pace have the same survey.
		if survey := a.surveyor.survey(min(interval/2, time.Second)); survey != told {
			told = survey
			_ = control.SetWriteDeadline(time.Now().Add(a.writeTime))
			err := lines.Encode(a.snapshot(survey, &meter, int(busiest)))
			if err == nil {
				err = control.Flush()
			}
			if err != nil {
				return streamed, nil // it has gone
			}
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

func (a *API) snapshot(survey *proxy.Survey, meter *proxy.Meter, busiest int) Snapshot {
	s := Snapshot{
		Time: survey.At, Status: a.viewStatus(&survey.Stats),
		Listeners: a.viewListeners(survey.Listeners), Upstreams: viewUpstreams(survey.Upstreams),
	}
	if busiest > 0 {
		for _, c := range meter.Busiest(survey, busiest) {
			s.Sessions = append(s.Sessions, BusySession{ViewSession(c.Conn), c.ToTarget, c.ToClient})
		}
	}
	return s
}
