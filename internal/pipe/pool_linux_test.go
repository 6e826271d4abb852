package pipe

import (
	"testing"

	"github.com/spliced-io/spliced/internal/sys"
)

func TestPoolLendsAndCloses(t *testing.T) {
	var p Pool
	a := p.Get()
	if a == nil {
		t.Fatal("no pipe")
	}
	if a.Size < least {
		t.Fatalf("a pipe of %d bytes, want at least %d", a.Size, least)
	}
	p.Put(a)
	if b := p.Get(); b != a {
		t.Fatal("the spare pipe was not lent")
	}
	p.Put(a)
	if !p.Idle() {
		t.Fatal("the spare pipe is gone")
	}
	if lent := p.Trim(); lent != 0 || p.Idle() {
		t.Fatalf("after Trim %d are lent, idle %v", lent, p.Idle())
	}
	if _, err := sys.PipeSize(a.W); err == nil {
		t.Fatal("a trimmed pipe is still open")
	}
}

func TestPoolClosesADirtyPipe(t *testing.T) {
	var p Pool
	a := p.Get()
	a.Held = 1
	p.Put(a)
	if p.Idle() {
		t.Fatal("a pipe with bytes in it waits for the next session")
	}
}

func TestPoolHasABudget(t *testing.T) {
	var p Pool
	var all []*Pipe
	for range most {
		if pipe := p.Get(); pipe != nil {
			all = append(all, pipe)
		}
	}
	if p.Get() != nil {
		t.Fatalf("more than %d pipes were lent", most)
	}
	for _, pipe := range all {
		p.Put(pipe)
	}
	if p.Get() == nil {
		t.Fatal("no pipe although all were given back")
	}
	p.Trim()
}

func TestDrainReturnsWhatIsInside(t *testing.T) {
	var p Pool
	a := p.Get()
	src, w, err := sys.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close(src)
	defer sys.Close(w)
	if _, err := sys.Write(w, []byte("in flight")); err != nil {
		t.Fatal(err)
	}
	if a.Held, err = sys.Splice(src, a.W, a.Size); err != nil {
		t.Fatal(err)
	}
	b, err := a.Drain()
	if err != nil || string(b) != "in flight" || a.Held != 0 {
		t.Fatalf("drained %q, %v, %d left", b, err, a.Held)
	}
	p.Put(a)
	p.Trim()
}
