package stat

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// A LogFormat says which columns a log has.
type LogFormat struct {
	Avg    time.Duration // 0: a line for each I/O
	Window string        // avg, max or both
	Offset bool
	Prio   bool
	PrioOf int // ioprio value
	Issue  bool
	Epoch  int64 // ms added to each time
}

// A Sample is one I/O in a log. Times are ns since the job's start.
type Sample struct {
	Now    int64
	Value  uint64
	Dir    int
	Block  int
	Offset int64
	Issue  int64
}

// A Log writes samples to a file as fio does:
//
//	ms, value[, max], direction, block size[, offset], priority[, issue ns]
//
// It is safe for concurrent use, as jobs may share one.
type Log struct {
	format LogFormat
	mu     sync.Mutex
	f      *os.File
	w      *bufio.Writer
	line   []byte
	win    [Directions]window
	err    error
}

type window struct {
	from    int64
	n       uint64
	sum     float64
	max     uint64
	started bool
}

// CreateLog makes a log file, or replaces it.
func CreateLog(name string, format LogFormat) (*Log, error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	return &Log{format: format, f: f, w: bufio.NewWriterSize(f, 64<<10)}, nil
}

// Add logs a latency, or another value of one I/O.
func (l *Log) Add(s Sample) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.format.Avg == 0 {
		l.write(s.Now, s.Value, s.Value, s)
		return
	}
	w := &l.win[s.Dir]
	if !w.started {
		*w = window{started: true, from: s.Now - s.Now%int64(l.format.Avg)}
	}
	w.n++
	w.sum += float64(s.Value)
	w.max = max(w.max, s.Value)
	if s.Now-w.from >= int64(l.format.Avg) {
		l.flush(s.Dir, s.Now)
	}
}

// AddRate logs a rate that the caller has averaged over the format's window.
func (l *Log) AddRate(s Sample) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write(s.Now, s.Value, s.Value, s)
}

// Averages says over how long the caller of AddRate has to average.
func (l *Log) Averages() time.Duration { return l.format.Avg }

func (l *Log) flush(dir int, now int64) {
	w := &l.win[dir]
	if w.n > 0 {
		l.write(now, uint64(w.sum/float64(w.n)+0.5), w.max, Sample{Dir: dir})
	}
	*w = window{started: true, from: now - now%int64(l.format.Avg)}
}

func (l *Log) write(now int64, value, most uint64, s Sample) {
	b := strconv.AppendInt(l.line[:0], now/1e6+l.format.Epoch, 10)
	comma := func() { b = append(b, ", "...) }
	comma()
	if l.format.Avg > 0 && l.format.Window == "max" {
		value = most
	}
	b = strconv.AppendUint(b, value, 10)
	if l.format.Avg > 0 && l.format.Window == "both" {
		comma()
		b = strconv.AppendUint(b, most, 10)
	}
	comma()
	b = strconv.AppendInt(b, int64(s.Dir), 10)
	comma()
	b = strconv.AppendInt(b, int64(s.Block), 10)
	if l.format.Offset {
		comma()
		b = strconv.AppendInt(b, s.Offset, 10)
	}
	comma()
	if l.format.Prio {
		b = fmt.Appendf(b, "0x%04x", l.format.PrioOf)
	} else if l.format.PrioOf>>13 == 1 {
		b = append(b, '1')
	} else {
		b = append(b, '0')
	}
	if l.format.Issue {
		comma()
		b = strconv.AppendInt(b, s.Issue, 10)
	}
	b = append(b, '\n')
	l.line = b
	if _, err := l.w.Write(b); err != nil && l.err == nil {
		l.err = err
	}
}

// Close writes what is left.
func (l *Log) Close(now int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.format.Avg > 0 {
		for dir := range l.win {
			l.flush(dir, now)
		}
	}
	err := l.w.Flush()
	if l.err != nil {
		err = l.err
	}
	if e := l.f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	return nil
}

// A HistLog writes the histogram of each interval: ms, direction, block size
// and the buckets, of which 2^coarseness neighbours are added up.
type HistLog struct {
	mu         sync.Mutex
	f          *os.File
	w          *bufio.Writer
	coarseness int
	last       [Directions]Hist
}

// CreateHistLog makes the file, or replaces it.
func CreateHistLog(name string, coarseness int) (*HistLog, error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	return &HistLog{f: f, w: bufio.NewWriter(f), coarseness: coarseness}, nil
}

// Add logs what was counted since the last call.
func (l *HistLog) Add(now int64, dir, block int, h *Hist) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.w, "%d, %d, %d", now/1e6, dir, block)
	step := 1 << l.coarseness
	for i := 0; i < Buckets; i += step {
		var n uint64
		for j := range step {
			n += h[i+j] - l.last[dir][i+j]
		}
		fmt.Fprintf(l.w, ", %d", n)
	}
	l.w.WriteByte('\n')
	l.last[dir] = *h
}

// Close writes what is left.
func (l *HistLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.w.Flush()
	if e := l.f.Close(); err == nil {
		err = e
	}
	return err
}
