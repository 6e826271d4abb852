package netbench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// The parts of a run that are processes of their own, so that each one's
// processor time can be told from the others': this program, started again. A
// role takes one line of JSON from its standard input, writes events to its
// standard output, and ends when its standard input does.
const (
	RoleSink   = "sink"
	RoleSource = "source"
	RoleGoCopy = "gocopy"
)

// event is a line that a role writes.
type event struct {
	Address string   `json:"address,omitempty"` // listening there
	Phase   Phase    `json:"phase,omitempty"`   // reached; a line from the parent is awaited
	Moved   int64    `json:"moved,omitempty"`   // so far
	Outcome *Outcome `json:"outcome,omitempty"`
	Error   string   `json:"error,omitempty"`
}

// endpoints is what sink and gocopy are told.
type endpoints struct {
	Listen string `json:"listen"`
	Target string `json:"target,omitempty"`
}

// RunRole is the body of a process that plays a role.
func RunRole(ctx context.Context, role string, in io.Reader, out io.Writer) error {
	lines := bufio.NewReader(in)
	line, err := lines.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("role %s: read instructions: %w", role, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	acks := make(chan struct{}, 16)
	go func() {
		// This goroutine ends with the process.
		defer cancel()
		for {
			if _, err := lines.ReadBytes('\n'); err != nil {
				return
			}
			acks <- struct{}{}
		}
	}()
	r := &roleOutput{encoder: json.NewEncoder(out)}
	switch role {
	case RoleSink:
		err = r.sink(ctx, line)
	case RoleSource:
		err = r.source(ctx, line, acks)
	case RoleGoCopy:
		err = r.gocopy(ctx, line)
	default:
		err = fmt.Errorf("unknown role %q", role)
	}
	if err != nil {
		_ = r.emit(event{Error: err.Error()}) // the parent may be gone
	}
	return err
}

type roleOutput struct {
	mu      sync.Mutex
	encoder *json.Encoder
}

func (r *roleOutput) emit(e event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.encoder.Encode(e)
}

func (r *roleOutput) sink(ctx context.Context, line []byte) error {
	var at endpoints
	if err := json.Unmarshal(line, &at); err != nil {
		return fmt.Errorf("read instructions: %w", err)
	}
	ln, err := ListenSink(ctx, at.Listen)
	if err != nil {
		return err
	}
	if err := r.emit(event{Address: ln.Addr().String()}); err != nil {
		ln.Close()
		return err
	}
	return NewSink().Serve(ctx, ln)
}

func (r *roleOutput) source(ctx context.Context, line []byte, acks <-chan struct{}) error {
	var load Load
	if err := json.Unmarshal(line, &load); err != nil {
		return fmt.Errorf("read instructions: %w", err)
	}
	source := NewSource(func(p Phase) {
		if r.emit(event{Phase: p}) != nil {
			return // the parent is gone, and the end is near
		}
		select {
		case <-acks:
		case <-ctx.Done():
		}
	})
	ended := make(chan struct{})
	var reporter sync.WaitGroup
	reporter.Go(func() {
		const interval = 250 * time.Millisecond
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				_ = r.emit(event{Moved: source.Moved.Load()})
			case <-ended:
				return
			}
		}
	})
	outcome, err := source.Run(ctx, load)
	close(ended)
	reporter.Wait()
	if err != nil {
		return err
	}
	return r.emit(event{Outcome: outcome})
}

func (r *roleOutput) gocopy(ctx context.Context, line []byte) error {
	var at endpoints
	if err := json.Unmarshal(line, &at); err != nil {
		return fmt.Errorf("read instructions: %w", err)
	}
	ln, err := net.Listen("tcp", at.Listen)
	if err != nil {
		return err
	}
	if err := r.emit(event{Address: ln.Addr().String()}); err != nil {
		ln.Close()
		return err
	}
	return GoCopy(ctx, ln, at.Target)
}

// GoCopy is the relay that everybody writes first: io.Copy both ways, with
// half-close. It serves until ctx ends.
func GoCopy(ctx context.Context, ln net.Listener, target string) error {
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		client, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("accept: %w", err)
		}
		wg.Go(func() { goCopy(ctx, client, target) })
	}
}

func goCopy(ctx context.Context, client net.Conn, target string) {
	defer client.Close()
	server, err := net.Dial("tcp", target)
	if err != nil {
		return // the client sees the end of its connection
	}
	defer server.Close()
	cut := context.AfterFunc(ctx, func() {
		client.Close()
		server.Close()
	})
	defer cut()
	forward := func(dst, src net.Conn) {
		if _, err := io.Copy(dst, src); err != nil {
			// The reset of one side must reach the other.
			client.Close()
			server.Close()
			return
		}
		_ = dst.(*net.TCPConn).CloseWrite() // fails if dst is closed: the end, too
	}
	var wg sync.WaitGroup
	wg.Go(func() { forward(client, server) })
	forward(server, client)
	wg.Wait()
}
