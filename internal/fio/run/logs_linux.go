package run

import (
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/spliced-io/spliced/internal/fio/ioengine"
	"github.com/spliced-io/spliced/internal/fio/stat"
)

// logs are a worker's logs; nil where none was asked for.
type logs struct {
	any                       bool
	bw, iops, slat, clat, lat *stat.Log
	hist                      *stat.HistLog
	io                        *ioLog
	own                       []interface{ Close(int64) error }
}

// sharedLogs are those of jobs with per_job_logs=0, by file name.
type sharedLogs struct {
	mu   sync.Mutex
	open map[string]*stat.Log
}

func (s *sharedLogs) get(name string, f stat.LogFormat) (*stat.Log, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.open[name]; l != nil {
		return l, nil
	}
	l, err := stat.CreateLog(name, f)
	if err == nil {
		s.open[name] = l
	}
	return l, err
}

func (s *sharedLogs) close(now int64) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.open {
		if e := l.Close(now); err == nil {
			err = e
		}
	}
	return err
}

func (l *logs) open(w *worker) error {
	o := w.o
	format := stat.LogFormat{
		Avg: o.LogAvg, Window: o.LogWindow, Offset: o.LogOffset, Prio: o.LogPrio,
		PrioOf: o.PrioClass<<13 | o.Prio, Issue: o.LogIssueTime,
	}
	if o.LogEpoch {
		format.Epoch = w.run.wall / int64(time.Millisecond)
	}
	name := func(base *string, kind string) string {
		stem := o.Name
		if *base != "" {
			stem = *base
		}
		stem = w.aux(stem)
		if !o.PerJobLogs {
			return stem + "_" + kind + ".log"
		}
		return fmt.Sprintf("%s_%s.%d.log", stem, kind, w.number)
	}
	var err error
	open := func(to **stat.Log, base *string, kind string) {
		if base == nil || err != nil {
			return
		}
		l.any = true
		if !o.PerJobLogs {
			*to, err = w.run.logs.get(name(base, kind), format)
			return
		}
		if *to, err = stat.CreateLog(name(base, kind), format); err == nil {
			l.own = append(l.own, *to)
		}
	}
	open(&l.bw, o.BWLog, "bw")
	open(&l.iops, o.IOPSLog, "iops")
	if w.async != nil {
		open(&l.slat, o.LatLog, "slat")
	} else if o.LatLog != nil {
		var ignored *stat.Log // fio makes the file for every engine
		open(&ignored, o.LatLog, "slat")
	}
	open(&l.clat, o.LatLog, "clat")
	open(&l.lat, o.LatLog, "lat")
	if err == nil && o.HistLog != nil {
		l.any = true
		l.hist, err = stat.CreateHistLog(name(o.HistLog, "clat_hist"), o.LogHistCoarseness)
	}
	if err == nil && o.IOLog != "" {
		l.any = true
		l.io, err = newIOLog(o.IOLog, w)
	}
	return err
}

// add logs one I/O.
func (l *logs) add(w *worker, u *ioengine.Unit, moved int, clat, lat, now int64) {
	s := stat.Sample{Now: now - w.begin, Dir: u.Dir, Block: moved, Offset: u.Block}
	if l.bw != nil && l.bw.Averages() == 0 {
		s.Value = uint64(float64(moved) / 1024 / (float64(max(lat, 1)) / 1e9))
		l.bw.Add(s)
	}
	if l.iops != nil && l.iops.Averages() == 0 {
		s.Value = 1
		l.iops.Add(s)
	}
	if l.lat != nil {
		s.Value = uint64(lat)
		l.lat.Add(s)
	}
	if l.clat != nil {
		s.Value, s.Issue = uint64(clat), u.Issue-w.begin
		l.clat.Add(s)
	}
	if l.io != nil {
		l.io.add(u, now-w.begin)
	}
}

func (l *logs) close(now int64) (err error) {
	for _, o := range l.own {
		if e := o.Close(now); err == nil {
			err = e
		}
	}
	if l.hist != nil {
		if e := l.hist.Close(); err == nil {
			err = e
		}
	}
	if l.io != nil {
		if e := l.io.close(now); err == nil {
			err = e
		}
	}
	return err
}

// An ioLog is fio's I/O log, version 3: ms, file, action, offset, length.
type ioLog struct {
	f     *os.File
	files []*ioengine.File
	line  []byte
	err   error
}

func newIOLog(name string, w *worker) (*ioLog, error) {
	if w.number > 1 && w.clone > 0 {
		name = fmt.Sprintf("%s.%d", name, w.number)
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("write_iolog: %w", err)
	}
	l := &ioLog{f: f, files: w.files}
	l.put("fio version 3 iolog\n")
	for _, file := range l.files {
		l.put("0 %s add\n0 %s open\n", file.Name, file.Name)
	}
	return l, nil
}

func (l *ioLog) put(format string, args ...any) {
	l.line = fmt.Appendf(l.line, format, args...)
	if len(l.line) > 64<<10 {
		l.flush()
	}
}

func (l *ioLog) flush() {
	if _, err := l.f.Write(l.line); err != nil && l.err == nil {
		l.err = err
	}
	l.line = l.line[:0]
}

func (l *ioLog) add(u *ioengine.Unit, now int64) {
	l.put("%d %s %s %d %d\n", now/1e6, u.File.Name, stat.Name(min(u.Dir, stat.Sync)), u.Block, u.Size)
}

func (l *ioLog) close(now int64) error {
	for _, file := range l.files {
		l.put("%d %s close\n", now/1e6, file.Name)
	}
	l.flush()
	if err := l.f.Close(); l.err == nil {
		l.err = err
	}
	return l.err
}
