//go:build linux

package conformance

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// A job is what a relay process has to do, as JSON in its environment.
type job struct {
	Engine string
	Own    bool
	Target string // where each connection goes, TCP
	Max    int64  // MaxBytes from the client to the target
}

// jobVariable is the environment variable of a job.
const jobVariable = "CONFORMANCE_RELAY"

// An order goes to a relay process, one JSON value for each.
type order struct {
	Do string // report, hold, join, exhaust, release
}

// A report is the answer.
type report struct {
	Address  string // where it listens
	Census   Census
	CPU      time.Duration // used by the process up to now
	Switches int64         // how often a thread of it went to sleep
	Peak     int64         // most resident memory so far, in bytes
	Running  int           // sessions
	Ended    int
	First    figures // of the first session, from the client to the target
	Error    string
	NoFiles  bool // the error was EMFILE
}

// figures are a splice.DirectionStats that can be read from JSON.
type figures struct {
	Bytes, Spliced int64
	Engine, Why    string
}

// Serving says whether this process was started by this package to be a
// relay: then the test that was named to it has to call Serve.
func Serving() bool { return os.Getenv(jobVariable) != "" }

// Serve is the relay process: it joins what connects to it with its target,
// until its standard input ends.
func Serve() error {
	var j job
	if err := json.Unmarshal([]byte(os.Getenv(jobVariable)), &j); err != nil {
		return fmt.Errorf("read the job: %w", err)
	}
	s := &server{job: j, released: make(chan struct{}, 1)}
	for _, e := range Engines() {
		if e.Name == j.Engine {
			s.options = append(s.options, e.Options...)
		}
	}
	s.options = append(s.options, splice.MaxBytes(j.Max, 0), splice.OnEnd(func(splice.Result) { s.ended() }))
	if j.Own {
		s.options = append(s.options, splice.Own())
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- s.accept(ln) }()
	err = s.obey(ln.Addr().String())
	ln.Close()
	close(s.released)
	err = errors.Join(err, <-done)
	s.close()
	return err
}

type server struct {
	job     job
	options []splice.Option

	mu       sync.Mutex
	holding  bool // the next connection waits for a join
	waiting  [2]net.Conn
	sessions []*splice.Session
	conns    []net.Conn
	finished int
	filler   []int
	released chan struct{} // descriptors are to be had again
}

func (s *server) accept(ln net.Listener) error {
	for {
		a, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if errors.Is(err, syscall.EMFILE) {
			<-s.released // the shortage is this program's own
			continue
		}
		if err != nil {
			return err
		}
		b, err := net.Dial("tcp", s.job.Target)
		if err != nil {
			a.Close()
			return err
		}
		s.mu.Lock()
		s.conns = append(s.conns, a, b)
		if s.holding {
			s.holding, s.waiting = false, [2]net.Conn{a, b}
		} else {
			err = s.join(a, b)
		}
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// join starts a session. The caller has locked s.
func (s *server) join(a, b net.Conn) error {
	session, err := splice.Start(a, b, s.options...)
	if err == nil {
		s.sessions = append(s.sessions, session)
	}
	return err
}

func (s *server) ended() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished++
}

func (s *server) close() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, session := range s.sessions {
		_, _ = session.Stop(ctx)
	}
	for _, c := range s.conns {
		c.Close()
	}
}

// obey answers orders until there are no more.
func (s *server) obey(address string) error {
	out := bufio.NewWriter(os.Stdout)
	answer := json.NewEncoder(out)
	orders := json.NewDecoder(os.Stdin)
	if err := answer.Encode(report{Address: address}); err != nil {
		return err
	}
	for {
		if err := out.Flush(); err != nil {
			return err
		}
		var o order
		if err := orders.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := answer.Encode(s.do(o)); err != nil {
			return err
		}
	}
}

func (s *server) do(o order) (r report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	switch o.Do {
	case "report":
		r, err = s.report()
	case "hold":
		s.holding = true
	case "join":
		err = s.join(s.waiting[0], s.waiting[1])
	case "exhaust":
		err = s.exhaust()
	case "release":
		for _, fd := range s.filler {
			syscall.Close(fd)
		}
		s.filler = nil
		select {
		case s.released <- struct{}{}:
		default:
		}
	default:
		err = fmt.Errorf("unknown order %q", o.Do)
	}
	if err != nil {
		r.Error, r.NoFiles = err.Error(), errors.Is(err, syscall.EMFILE)
	}
	return r
}

// exhaust takes every descriptor that is left.
func (s *server) exhaust() error {
	for {
		fd, err := syscall.Dup(0)
		if errors.Is(err, syscall.EMFILE) {
			return nil
		}
		if err != nil {
			return err
		}
		s.filler = append(s.filler, fd)
	}
}

func (s *server) report() (report, error) {
	r := report{Ended: s.finished}
	if s.filler == nil {
		r.Census = census()
	}
	for _, session := range s.sessions {
		select {
		case <-session.Done():
		default:
			r.Running++
		}
	}
	if len(s.sessions) > 0 {
		d := s.sessions[0].Stats().AToB
		r.First = figures{d.Bytes, d.Spliced, d.Engine.String(), d.Why.String()}
	}
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return r, err
	}
	r.CPU = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	r.Switches = int64(usage.Nvcsw)
	if s.filler == nil {
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			return r, err
		}
		_, after, _ := strings.Cut(string(status), "VmHWM:")
		if _, err := fmt.Sscanf(after, "%d", &r.Peak); err != nil {
			return r, fmt.Errorf("read the peak of memory: %w", err)
		}
		r.Peak <<= 10
	}
	return r, nil
}
