package peek

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// The kinds of connections, with what they promise.
var kinds = append([]kind{
	{"tcp", func(t testing.TB) (near, far net.Conn) { return pair(t, "tcp", "127.0.0.1:0") }},
	{"unix", func(t testing.TB) (near, far net.Conn) {
		return pair(t, "unix", filepath.Join(t.TempDir(), "socket"))
	}},
	{"no descriptor", func(t testing.TB) (near, far net.Conn) {
		near, far = pair(t, "tcp", "127.0.0.1:0")
		return struct{ net.Conn }{near}, far
	}},
}, heldKinds...)

type kind struct {
	name string
	pair func(testing.TB) (near, far net.Conn)
}

// enter has a guest wait, where its connection says how.
func enter(r *Room, g Guest) error {
	if c, ok := g.Conn.(interface{ enter(*Room, Guest) error }); ok {
		return c.enter(r, g)
	}
	return r.Wait(g)
}

func pair(t testing.TB, network, address string) (near, far net.Conn) {
	t.Helper()
	if runtime.GOOS == "windows" && network == "unix" {
		t.Skip("no unix sockets in a temporary directory")
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	far, err = net.Dial(network, ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

func eachKind(t *testing.T, f func(t *testing.T, r *Room, near, far net.Conn)) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			near, far := k.pair(t)
			r := new(Room)
			t.Cleanup(r.Close)
			f(t, r, near, far)
		})
	}
}

func write(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

// wait lets conn wait. The outcome's bytes are copies.
func wait(t *testing.T, r *Room, conn net.Conn, deadline time.Duration, look func([]byte) Action) <-chan Outcome {
	t.Helper()
	done := make(chan Outcome, 2)
	g := Guest{Conn: conn, Look: look, Done: func(o Outcome) {
		o.Bytes, o.Read = bytes.Clone(o.Bytes), bytes.Clone(o.Read)
		done <- o
	}}
	if deadline > 0 {
		g.Deadline = time.Now().Add(deadline)
	}
	if err := enter(r, g); err != nil {
		t.Fatal(err)
	}
	return done
}

func outcome(t *testing.T, done <-chan Outcome) Outcome {
	t.Helper()
	select {
	case o := <-done:
		select {
		case <-done:
			t.Fatal("told twice")
		default:
		}
		return o
	case <-time.After(patience):
		t.Fatal("no outcome")
		panic("unreachable")
	}
}

// rest is what the connection's next owner gets, after far was closed.
func rest(t *testing.T, near, far net.Conn, o Outcome) string {
	t.Helper()
	far.Close()
	_ = near.SetReadDeadline(time.Now().Add(patience))
	b, err := io.ReadAll(near)
	if err != nil {
		t.Fatal(err)
	}
	return string(o.Read) + string(b)
}

// lines wants whole lines, and takes those that begin with an x.
func lines(b []byte) Action {
	end := bytes.IndexByte(b, '\n')
	switch {
	case end < 0:
		return Action{Need: len(b) + 1}
	case b[0] == 'x':
		return Action{Take: end + 1, Need: 1}
	}
	return Action{}
}

func TestByteByByte(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, r *Room, near, far net.Conn) {
		done := wait(t, r, near, 0, lines)
		for _, c := range "xyz\nxx\nhello\nmore" {
			write(t, far, string(c))
		}
		o := outcome(t, done)
		if o.Err != nil || !bytes.HasPrefix(o.Bytes, []byte("hello\n")) {
			t.Errorf("outcome %q, %v", o.Bytes, o.Err)
		}
		if got := rest(t, near, far, o); got != "hello\nmore" {
			t.Errorf("left to read: %q", got)
		}
		if r.Len() != 0 {
			t.Errorf("%d still wait", r.Len())
		}
	})
}

func TestAllThere(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, r *Room, near, far net.Conn) {
		write(t, far, "x\nx\nhello\n")
		far.Close()
		o := outcome(t, wait(t, r, near, 0, lines))
		if o.Err != nil || string(o.Bytes) != "hello\n" {
			t.Errorf("outcome %q, %v", o.Bytes, o.Err)
		}
		if got := rest(t, near, far, o); got != "hello\n" {
			t.Errorf("left to read: %q", got)
		}
	})
}

// A header may be all that is wanted, and the client silent after it.
func TestTakeAndGo(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, r *Room, near, far net.Conn) {
		write(t, far, "header")
		o := outcome(t, wait(t, r, near, 0, func(b []byte) Action {
			if len(b) < 6 {
				return Action{Need: 6}
			}
			return Action{Take: 6}
		}))
		if o.Err != nil || len(o.Bytes) != 0 {
			t.Errorf("outcome %q, %v", o.Bytes, o.Err)
		}
		write(t, far, "body")
		if got := rest(t, near, far, o); got != "body" {
			t.Errorf("left to read: %q", got)
		}
	})
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		deadline time.Duration
		end      func(*Room, net.Conn)
		want     error
	}{
		"deadline": {time.Millisecond, func(*Room, net.Conn) {}, os.ErrDeadlineExceeded},
		"end":      {patience, func(_ *Room, far net.Conn) { far.Close() }, io.ErrUnexpectedEOF},
		"closed":   {patience, func(r *Room, _ net.Conn) { r.Close() }, net.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachKind(t, func(t *testing.T, r *Room, near, far net.Conn) {
				write(t, far, "x\nhal")
				looked := make(chan struct{}, 8)
				done := wait(t, r, near, tt.deadline, func(b []byte) Action {
					if string(b) == "hal" {
						looked <- struct{}{}
					}
					return lines(b)
				})
				if tt.deadline == patience {
					<-looked
				}
				tt.end(r, far)
				o := outcome(t, done)
				if !errors.Is(o.Err, tt.want) {
					t.Errorf("error %v, want %v", o.Err, tt.want)
				}
				// With the shortest deadline nothing may have been looked at yet.
				if got := rest(t, near, far, o); got != "hal" && (tt.deadline == patience || got != "x\nhal") {
					t.Errorf("left to read: %q", got)
				}
			})
		})
	}
}

func TestReset(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, r *Room, near, far net.Conn) {
		tcp, ok := far.(*net.TCPConn)
		if !ok {
			t.Skip("no RST")
		}
		done := wait(t, r, near, 0, lines)
		if err := tcp.SetLinger(0); err != nil {
			t.Fatal(err)
		}
		tcp.Close()
		if o := outcome(t, done); !errors.Is(o.Err, syscall.ECONNRESET) {
			t.Errorf("error %v, want a reset", o.Err)
		}
	})
}

func TestNonsense(t *testing.T) {
	t.Parallel()
	for _, a := range []Action{{Need: 2}, {Take: 4}, {Take: -1}, {Need: -1}, {Need: Max + 1}} {
		eachKind(t, func(t *testing.T, r *Room, near, far net.Conn) {
			write(t, far, "abc")
			o := outcome(t, wait(t, r, near, 0, func(b []byte) Action {
				if len(b) < 3 {
					return Action{Need: 3}
				}
				return a
			}))
			if !errors.Is(o.Err, errAction) {
				t.Errorf("%+v: error %v", a, o.Err)
			}
		})
	}
}

func TestMaxBytes(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, r *Room, near, far net.Conn) {
		sent := bytes.Repeat([]byte("0123456789abcdef"), Max/16+100)
		go func() {
			_, _ = far.Write(sent)
			far.Close()
		}()
		o := outcome(t, wait(t, r, near, 0, func(b []byte) Action {
			if len(b) < Max {
				return Action{Need: Max}
			}
			return Action{}
		}))
		if o.Err != nil || len(o.Bytes) != Max {
			t.Errorf("%d bytes, %v", len(o.Bytes), o.Err)
		}
		if got := rest(t, near, far, o); got != string(sent) {
			t.Errorf("%d bytes of %d left to read", len(got), len(sent))
		}
	})
}

func TestClosedRoom(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, r *Room, near, _ net.Conn) {
		r.Close()
		err := enter(r, Guest{Conn: near, Look: lines, Done: func(Outcome) { t.Error("told") }})
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("error %v", err)
		}
	})
}

// Many wait at a time, come and go; each is told once, of its own bytes.
func TestMany(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	r := new(Room)
	defer r.Close()
	const guests = 200
	var told atomic.Int64
	done := make(chan error, guests)
	for i := range guests {
		far, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		near, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { near.Close(); far.Close() })
		want := string(rune('a'+i%20)) + "\n"
		err = r.Wait(Guest{Conn: near, Deadline: time.Now().Add(patience + time.Duration(i%7)*time.Second), Look: lines, Done: func(o Outcome) {
			told.Add(1)
			if o.Err == nil && string(o.Bytes) != want {
				o.Err = errors.New("the bytes of another: " + string(o.Bytes))
			}
			done <- o.Err
		}})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = io.WriteString(far, want[:1])
			_, _ = io.WriteString(far, want[1:])
		}()
	}
	for range guests {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Fatalf("%d of %d were told", told.Load(), guests)
		}
	}
}

// Who is dismissed has been told when Dismiss returns: the first to be late, of those who
// may leave in a hurry by now.
func TestDismiss(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("nobody hurries here")
	}
	r := new(Room)
	defer r.Close()
	var left []string // by Dismiss, on this goroutine
	enter := func(name, of string, deadline, hurried time.Duration) {
		t.Helper()
		near, far := pair(t, "tcp", "127.0.0.1:0")
		write(t, far, "half of a line of "+name)
		begun := time.Now()
		looked := make(chan struct{})
		err := r.Wait(Guest{
			Conn: near, Of: of, Deadline: begun.Add(deadline), Hurried: begun.Add(hurried),
			Look: func(b []byte) Action {
				close(looked)
				return lines(b)
			},
			Done: func(o Outcome) {
				if errors.Is(o.Err, os.ErrDeadlineExceeded) {
					left = append(left, string(o.Bytes))
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		<-looked // and is the room's no more, soon
	}
	enter("b first", "b", patience, 0)
	enter("a later", "a", 3*patience, 0)
	enter("a first", "a", 2*patience, 0)
	enter("c not yet", "c", 4*patience, 4*patience)
	dismissed := func(of any, n int, want ...string) {
		t.Helper()
		left = nil
		for end := time.Now().Add(patience); len(left) < len(want) && time.Now().Before(end); {
			r.Dismiss(of, n-len(left)) // the room may be with the first still
		}
		for i, name := range want {
			if i >= len(left) || left[i] != "half of a line of "+name {
				t.Fatalf("%q have left, want %q", left, want)
			}
		}
		if len(left) > len(want) {
			t.Fatalf("%q have left, want %q", left, want)
		}
	}
	dismissed("a", 1, "a first")
	dismissed("c", 2)
	dismissed("d", 1)
	dismissed(nil, 5, "b first", "a later")
	if n := r.Len(); n != 1 {
		t.Errorf("%d wait, want the one that may not leave yet", n)
	}
}

// Who hurries is asked for by whose guest it is, or of all: those go first that would
// be late next, and no more than were asked for.
func TestHurry(t *testing.T) {
	t.Parallel()
	r := new(Room)
	defer r.Close()
	left := make(chan string, 10)
	enter := func(name, of string, deadline time.Duration) {
		t.Helper()
		near, _ := pair(t, "tcp", "127.0.0.1:0")
		begun := time.Now()
		err := r.Wait(Guest{
			Conn: near, Of: of, Deadline: begun.Add(patience + deadline), Hurried: begun.Add(deadline / 1000), Look: lines,
			Done: func(o Outcome) {
				if errors.Is(o.Err, os.ErrDeadlineExceeded) {
					left <- name
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	enter("late of a", "a", 4*time.Second)
	enter("first of a", "a", 1*time.Second)
	enter("second of a", "a", 2*time.Second)
	enter("first of b", "b", 3*time.Second)
	enter("late of b", "b", 5*time.Second)
	expect := func(names ...string) {
		t.Helper()
		for _, want := range names {
			select {
			case got := <-left:
				if got != want {
					t.Errorf("%s has left, want %s", got, want)
				}
			case <-time.After(patience):
				t.Fatalf("%s does not leave", want)
			}
		}
	}
	r.Hurry("b", 1)
	expect("first of b")
	r.Hurry("c", 1)
	r.Hurry("a", 0)
	r.Hurry(nil, 2)
	expect("first of a", "second of a")
	r.Hurry("b", 1)
	expect("late of b")
	r.Hurry("a", 5)
	expect("late of a")
	if n := len(left); n > 0 {
		t.Errorf("%d more have left, the first is %s", n, <-left)
	}
}
