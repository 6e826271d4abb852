package engine

import (
	"net"
	"testing"
)

// owned is a session that has its sockets for itself.
type owned struct {
	*Session
	t     *testing.T
	fds   [2]int
	peers [2]*net.TCPConn
}

func startOwned(t *testing.T, r *Reactor) owned { return startLimited(t, r, Limits{}) }

func startLimited(t *testing.T, r *Reactor, limits Limits) owned {
	t.Helper()
	fds, peers := ends(t)
	s, err := r.Start(Spec{A: fds[0], B: fds[1], Own: true, Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	return owned{s, t, fds, peers}
}

// end has both peers end the session.
func (o owned) end() {
	o.t.Helper()
	for _, p := range o.peers {
		if err := p.CloseWrite(); err != nil {
			o.t.Fatal(err)
		}
	}
	<-o.Done()
	if r := o.Result(); r.AToB.Reason != EOF || r.BToA.Reason != EOF {
		o.t.Fatalf("ended with %v", r)
	}
}
