package peek

import (
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/sys"
)

func low(t *testing.T, c net.Conn) (n int) {
	t.Helper()
	rc, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	cerr := rc.Control(func(fd uintptr) { n, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT) })
	if cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	return n
}

// A client that says nothing wakes nobody, not even when it comes: in a flood that is a
// change of threads for each.
func TestSilenceWakesNobody(t *testing.T) {
	t.Parallel()
	near, far := pair(t, "tcp", "127.0.0.1:0")
	ep, err := sys.EpollCreate()
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close(ep)
	r := &Room{ep: ep} // nobody runs it
	err = r.Wait(Guest{Conn: near, Look: lines, Done: func(Outcome) { t.Error("told") }})
	if err != nil {
		t.Fatal(err)
	}
	events := make([]sys.EpollEvent, 2)
	if n, err := sys.EpollWait(ep, events, 0); n != 0 || err != nil {
		t.Errorf("woken %d times by silence, %v: events %#x", n, err, events[0].Events)
	}
	write(t, far, "a")
	if n, err := sys.EpollWait(ep, events, int(patience/time.Millisecond)); n != 1 || err != nil {
		t.Errorf("woken %d times by a byte, %v", n, err)
	}
}

// A client that sends a long message byte by byte is not looked at for each:
// the kernel is asked to wake the room when the message is there.
func TestTrickleWakesNobody(t *testing.T) {
	t.Parallel()
	near, far := pair(t, "tcp", "127.0.0.1:0")
	r := new(Room)
	defer r.Close()
	looks := make(chan int, 2000)
	done := wait(t, r, near, 0, func(b []byte) Action {
		looks <- len(b)
		if len(b) < 1000 {
			return Action{Need: 1000}
		}
		return Action{}
	})
	write(t, far, "a")
	if n := <-looks; n != 1 {
		t.Fatalf("first look at %d bytes", n)
	}
	// The option is set after the look, and must be there before the next byte.
	for end := time.Now().Add(patience); low(t, near) != 1000; {
		if time.Now().After(end) {
			t.Fatalf("SO_RCVLOWAT is %d, want 1000", low(t, near))
		}
	}
	for range 999 {
		write(t, far, "a")
	}
	if o := outcome(t, done); o.Err != nil || len(o.Bytes) != 1000 {
		t.Errorf("%d bytes, %v", len(o.Bytes), o.Err)
	}
	if n := len(looks); n != 1 {
		t.Errorf("%d more looks, want 1", n)
	}
	if n := low(t, near); n != 1 {
		t.Errorf("SO_RCVLOWAT is %d afterwards", n)
	}
}
