package proxy

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"
)

// A connection that ends while another client looks for room, and finds none, is not
// missed: nobody waits for what is there.
func TestNobodyWaitsForRoom(t *testing.T) {
	t.Parallel()
	s := new(Server)
	s.mu.Lock()
	s.init()
	s.mu.Unlock()
	defer s.cancel()
	u := newUpstream(s, "u")
	c := Upstream{Servers: Targets("127.0.0.1:1"), MaxConnections: 1, Queue: Queue{Limit: 8, Timeout: Duration(time.Hour)}}
	c.Attempts = 1
	u.configure(c)
	defer u.close()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 30*time.Second, context.DeadlineExceeded)
	defer cancel()
	var clients sync.WaitGroup
	for range 2 {
		clients.Go(func() {
			for range 50_000 {
				members, err := u.choose(ctx, pickKey{})
				if err != nil {
					t.Errorf("with %d connections and %d that wait: %v", u.members[0].active.Load(), u.queued.Load(), err)
					cancel()
					return
				}
				if n := members[0].active.Load(); n != 1 {
					t.Errorf("%d connections, want 1", n)
				}
				for range rand.N(1000) { // so that it ends at any step of the other's
					runtime.KeepAlive(members)
				}
				members[0].leave()
			}
		})
	}
	clients.Wait()
}
