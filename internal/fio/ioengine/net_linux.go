package ioengine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/fio/job"
	"github.com/spliced-io/spliced/internal/sys"
)

// A peer is the connection of a network job: a blocking socket.
type peer struct {
	fd   int
	stop *atomic.Bool
	late func() bool
	file *os.File // owns fd
}

// over says whether the job is to end, and why.
func over(stop *atomic.Bool, late func() bool) error {
	switch {
	case stop.Load():
		return syscall.EINTR
	case late != nil && late():
		return errLate
	}
	return nil
}

// errLate ends a wait for a peer when the job's runtime is over.
var errLate = fmt.Errorf("the job's runtime is over: %w", syscall.ETIMEDOUT)

// wait waits until the socket is ready, or the job has to end.
func (p *peer) wait(ready func(fd, msec int) (bool, error)) error {
	for {
		ok, err := ready(p.fd, int(tick.Milliseconds()))
		if ok || err != nil {
			return err
		}
		if err := over(p.stop, p.late); err != nil {
			return err
		}
	}
}

// dialPeer accepts one connection (listen) or makes one, for which it tries
// as long as nobody listens yet: the other end may be a job that starts later.
func dialPeer(c Config) (*peer, error) {
	o := c.Options
	network, address, err := target(o)
	if err != nil {
		return nil, err
	}
	var conn net.Conn
	if o.Listen {
		conn, err = acceptOne(network, address, c)
	} else {
		conn, err = dialRetrying(network, address, c)
	}
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return newPeer(conn, c)
}

func target(o *job.Options) (network, address string, err error) {
	if o.Protocol == "unix" {
		if o.Hostname == "" {
			return "", "", errors.New("protocol=unix needs hostname, the path of the socket")
		}
		return "unix", o.Hostname, nil
	}
	if o.Port == 0 {
		return "", "", errors.New("a network job needs port")
	}
	if o.Hostname == "" && !o.Listen {
		return "", "", errors.New("a network job that does not listen needs hostname")
	}
	network = "tcp4"
	if o.Protocol == "tcpv6" {
		network = "tcp6"
	}
	return network, net.JoinHostPort(o.Hostname, strconv.Itoa(o.Port)), nil
}

func acceptOne(network, address string, c Config) (net.Conn, error) {
	ln, err := net.Listen(network, address)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	defer ln.Close()
	deadline := ln.(interface{ SetDeadline(time.Time) error })
	for {
		if err := deadline.SetDeadline(time.Now().Add(tick)); err != nil {
			return nil, err
		}
		conn, err := ln.Accept()
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return conn, err
		}
		if err := over(c.Stop, c.Late); err != nil {
			return nil, fmt.Errorf("listen on %s: nobody has connected: %w", address, err)
		}
	}
}

func dialRetrying(network, address string, c Config) (net.Conn, error) {
	o := c.Options
	ctx, cancel := context.WithTimeoutCause(context.Background(), dialPatience, syscall.ETIMEDOUT)
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	defer watchOver(end, c)()
	var d net.Dialer
	if o.Interface != "" {
		d.Control = func(_, _ string, c syscall.RawConn) (err error) {
			e := c.Control(func(fd uintptr) { err = syscall.BindToDevice(int(fd), o.Interface) })
			return errors.Join(e, err)
		}
	}
	for {
		conn, err := d.DialContext(ctx, network, address)
		nobody := errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT)
		switch {
		case err == nil:
			return conn, nil
		case ctx.Err() != nil && !nobody:
			return nil, fmt.Errorf("connect to %s: %w", address, context.Cause(ctx))
		case !nobody:
			return nil, fmt.Errorf("connect: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("connect: %w", err)
		case <-time.After(10 * time.Millisecond): // nothing tells when somebody listens
		}
	}
}

// dialPatience is how long a job waits for somebody to listen, if its runtime
// is not shorter.
const dialPatience = 10 * time.Second

// watchOver calls end when the job has to end. The watch lasts until the
// function returned is called.
func watchOver(end context.CancelCauseFunc, c Config) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(tick)
		defer t.Stop()
		for {
			select {
			case <-quit:
				return
			case <-t.C:
				if err := over(c.Stop, c.Late); err != nil {
					end(err)
					return
				}
			}
		}
	}()
	return func() {
		close(quit)
		<-done
		end(nil)
	}
}

// newPeer takes a blocking duplicate of the connection's descriptor.
func newPeer(conn net.Conn, c Config) (*peer, error) {
	o := c.Options
	f, err := conn.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		return nil, err
	}
	p := &peer{fd: int(f.Fd()), stop: c.Stop, late: c.Late, file: f} // Fd makes it blocking
	set := func(level, opt, v int) {
		if err == nil && v != 0 {
			err = os.NewSyscallError("setsockopt", syscall.SetsockoptInt(p.fd, level, opt, v))
		}
	}
	if _, tcp := conn.(*net.TCPConn); tcp {
		noDelay := 0
		if o.NoDelay {
			noDelay = 1
		}
		err = os.NewSyscallError("setsockopt", syscall.SetsockoptInt(p.fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, noDelay))
		set(syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, o.MSS)
	}
	if o.Reads() || o.PingPong {
		set(syscall.SOL_SOCKET, syscall.SO_RCVBUF, o.WindowSize)
	}
	if o.Writes() || o.PingPong {
		set(syscall.SOL_SOCKET, syscall.SO_SNDBUF, o.WindowSize)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return p, nil
}

// finish closes: what was sent reaches the peer first, or the peer is gone.
func (p *peer) finish() {
	_ = sys.Shutdown(p.fd, syscall.SHUT_WR)
	var b [4096]byte
	for p.wait(sys.WaitReadable) == nil {
		if n, err := sys.Readn(p.fd, ptr(b[:]), len(b)); n == 0 || err != nil {
			break
		}
	}
	_ = p.file.Close()
}

// netEngine sends the blocks of a writing job over one connection, and
// receives those of a reading one. With splice, sending passes references to
// the job's pages.
type netEngine struct {
	peer     *peer
	pipe     *conduit // nil: engine net
	pingpong bool
	volatile bool // buffers change between blocks
	conf     Config
	evidence *Evidence
}

func newNet(c Config, splice bool) (Engine, error) {
	o := c.Options
	if o.Reads() == o.Writes() || o.Random() || o.Trims() {
		return nil, fmt.Errorf("ioengine=%s is a stream of one direction: rw must be read or write", o.Engine)
	}
	if o.Verify != "" && o.VerifyBacklog > 0 {
		return nil, fmt.Errorf("ioengine=%s can't read back what it sent: no verify_backlog", o.Engine)
	}
	if _, _, err := target(o); err != nil {
		return nil, err
	}
	e := &netEngine{pingpong: o.PingPong, conf: c}
	e.volatile = o.Verify != "" || o.RefillBuffers || o.Dedupe > 0 ||
		o.Scramble && !o.ZeroBuffers && o.BufferPattern == nil
	if splice {
		p, err := newConduit(c.Block, c.Stop)
		if err != nil {
			return nil, err
		}
		e.pipe = p
		e.evidence = &Evidence{
			Path: "memory → pipe → socket, socket → pipe → memory", PipeSize: p.size,
			ToUser: "copied (vmsplice)", Source: probeUserPages(),
		}
		if e.volatile {
			e.evidence.Note = "buffers change: each block gets fresh pages, since the receiver may still refer to the old ones"
		}
	}
	return e, nil
}

func (e *netEngine) Open(*File) (err error) {
	if e.peer == nil {
		e.peer, err = dialPeer(e.conf)
	}
	return err
}

func (e *netEngine) Close(*File) error { return nil }

func (e *netEngine) Evidence() *Evidence { return e.evidence }

func (e *netEngine) Shutdown() {
	if e.peer != nil {
		e.peer.finish()
	}
	if e.pipe != nil {
		e.pipe.close()
	}
}

func (e *netEngine) Do(u *Unit) {
	switch u.Dir {
	case Read:
		if e.receive(u); e.pingpong && u.Err == nil && u.N == u.Len {
			e.answer(u, e.send)
		}
	case Write:
		if e.send(u); e.pingpong && u.Err == nil {
			e.answer(u, e.receive)
		}
	default:
		u.N = u.Len
	}
}

// answer runs the other half of a ping-pong over the same buffer.
func (e *netEngine) answer(u *Unit, do func(*Unit)) {
	moved := u.N
	u.N = 0
	if do(u); u.Err == nil && u.N != u.Len {
		u.Err = syscall.ECONNRESET
	}
	u.N = moved
}

func (e *netEngine) send(u *Unit) {
	for u.N < u.Len && u.Err == nil {
		if u.Err = e.peer.wait(sys.WaitWritable); u.Err != nil {
			return
		}
		if e.pipe == nil {
			var n int
			n, u.Err = sys.Send(e.peer.fd, u.Buf[u.At+u.N:u.At+u.Len])
			u.N += n
			if u.Err == syscall.EAGAIN {
				u.Err = nil
			}
			continue
		}
		e.sendPages(u)
	}
	if e.pipe != nil && e.volatile && u.Err == nil {
		u.Err = e.freshPages(u.Buf)
	}
}

// sendPages moves at most a pipeful: the pipe is empty before and after.
func (e *netEngine) sendPages(u *Unit) {
	held, err := e.pipe.fromUser(u.Buf[u.At+u.N : u.At+u.Len])
	for held > 0 && err == nil {
		var n int
		flags := sys.SpliceNonblock
		if !u.Last && !e.pingpong {
			flags |= sys.SpliceMoreFlag
		}
		n, err = sys.SpliceAt(e.pipe.r, nil, e.peer.fd, nil, held, flags)
		if err == syscall.EAGAIN {
			err = e.peer.wait(sys.WaitWritable)
			continue
		}
		held -= n
		u.N += n
	}
	if u.Err = err; err != nil {
		_ = e.pipe.reset()
	}
}

// freshPages drops the buffer's pages from this process: the socket, and on
// loopback the receiver's too, go on referring to them, and the next write to
// the buffer gets new ones. Waiting for the acknowledgement would not do: on
// loopback a byte is acknowledged long before it is read.
func (e *netEngine) freshPages(b []byte) error {
	const page = 4096
	end := len(b) &^ (page - 1)
	return sys.Madvise(b[:end], sys.AdviseDontNeed)
}

func (e *netEngine) receive(u *Unit) {
	for u.N < u.Len && u.Err == nil {
		if u.Err = e.peer.wait(sys.WaitReadable); u.Err != nil {
			return
		}
		var n int
		if e.pipe == nil {
			n, u.Err = sys.Recv(e.peer.fd, u.Buf[u.At+u.N:u.At+u.Len])
		} else {
			n, u.Err = sys.SpliceAt(e.peer.fd, nil, e.pipe.w, nil, u.Len-u.N, sys.SpliceNonblock)
			if n > 0 {
				if u.Err = e.pipe.toUser(u, u.At+u.N, n); u.Err != nil {
					_ = e.pipe.reset()
				}
			}
		}
		if u.Err == syscall.EAGAIN {
			u.Err = nil
			continue
		}
		if n == 0 {
			return // the peer has sent everything
		}
		u.N += n
	}
}
