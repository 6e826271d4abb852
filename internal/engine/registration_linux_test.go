package engine

import (
	"io"
	"runtime"
	"testing"

	"github.com/spliced-io/spliced/internal/sys"
)

// A socket stays registered as long as anybody has it open. What happens to it
// after its session's end does not concern the session that has its slot then.
func TestEventOfAnOldRegistration(t *testing.T) {
	var r Reactor
	keeper := startOwned(t, &r) // has the loop and its slots stay
	defer keeper.end()
	for range runtime.NumCPU() - 1 {
		defer startOwned(t, &r).end()
	}
	for range 20 * runtime.NumCPU() { // so that each loop has some
		old := startOwned(t, &r)
		kept, err := sys.Dup(old.fds[1])
		if err != nil {
			t.Fatal(err)
		}
		old.end()

		s := startOwned(t, &r) // one of them has the slots of old
		other := startOwned(t, &r)
		for _, s := range []owned{s, other} {
			// The direction that is left watches its drain for a hang-up.
			if err := s.peers[0].CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if _, err := s.peers[1].Read(make([]byte, 1)); err != io.EOF {
				t.Fatalf("the FIN arrived as %v", err)
			}
		}
		if err := sys.Disconnect(kept); err != nil { // a hang-up
			t.Fatal(err)
		}
		for _, s := range []owned{s, other} {
			if _, err := s.peers[1].Write([]byte("answer")); err != nil {
				t.Fatal(err)
			}
			if err := s.peers[1].CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(s.peers[0]); string(b) != "answer" || err != nil {
				t.Fatalf("after another socket's hang-up the client got %q, %v", b, err)
			}
			<-s.Done()
		}
		_ = sys.Close(kept)
	}
}
