package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/spliced-io/spliced/splice"
)

// A thousand listeners are not a line of a thousand names.
func TestWantsNamesFew(t *testing.T) {
	c := Config{Listeners: make(map[string]Listener), Upstreams: map[string]Upstream{"u": {Servers: Targets("a:1")}}}
	for i := range 1000 {
		c.Listeners[fmt.Sprintf("l%03d", i)] = Listener{Address: []string{"127.0.0.1:0"}, Upstream: "u"}
	}
	if got := c.Wants()[0].For; got != "for the engine auto of listener l000, l001, l002 and 997 more" {
		t.Errorf("%q", got)
	}
}

// Privileges are wanted where a connection could be handed over, and nowhere else.
func TestWants(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(l *Listener, u *Upstream)
		want   bool
	}{
		"nothing said":           {func(*Listener, *Upstream) {}, true},
		"splice":                 {func(l *Listener, _ *Upstream) { l.Engine = splice.EngineSplice }, false},
		"copy":                   {func(l *Listener, _ *Upstream) { l.Engine = splice.EngineCopy }, false},
		"wire, which needs them": {func(l *Listener, _ *Upstream) { l.Engine = splice.EngineWire }, false},
		"TLS ends":               {func(l *Listener, _ *Upstream) { l.TLS = &ListenerTLS{} }, false},
		"TLS begins":             {func(_ *Listener, u *Upstream) { u.TLS = &UpstreamTLS{} }, false},
		"bandwidth of all":       {func(l *Listener, _ *Upstream) { l.Bandwidth.ToClient = 1 }, false},
		"bandwidth of each":      {func(l *Listener, _ *Upstream) { l.Limits.Bandwidth.ToServer = 1 }, false},
		"bytes":                  {func(l *Listener, _ *Upstream) { l.Limits.BytesToClient = 1 << 30 }, true},
		"transparent":            {func(l *Listener, _ *Upstream) { l.Socket.Transparent = true }, false},
		"clients' own addresses": {func(_ *Listener, u *Upstream) { u.SourceAddress.Client = true }, false},
		"an address of ours":     {func(_ *Listener, u *Upstream) { u.SourceAddress.Addr = netip.MustParseAddr("127.0.0.1") }, true},
		"redirected":             {func(_ *Listener, u *Upstream) { u.Servers = Targets(OriginalDestination) }, false},
		"of a PROXY header": {func(l *Listener, u *Upstream) {
			u.Servers, l.ProxyFrom = Targets(OriginalDestination), []netip.Prefix{{}}
		}, true},
		"unix clients":          {func(l *Listener, _ *Upstream) { l.Address = []string{"unix:/run/s"} }, false},
		"some unix clients":     {func(l *Listener, _ *Upstream) { l.Address = []string{"unix:/run/s", ":80"} }, true},
		"the service manager's": {func(l *Listener, _ *Upstream) { l.Address = []string{"systemd"} }, true},
		"unix servers":          {func(_ *Listener, u *Upstream) { u.Servers = Targets("unix:/run/s") }, false},
		"some unix servers":     {func(_ *Listener, u *Upstream) { u.Servers = Targets("unix:/run/s", "srv:_a._tcp.b") }, true},
		"all rejected":          {func(l *Listener, _ *Upstream) { l.Upstream, l.Routes = "", []Route{{Reject: true}} }, false},
		"a route to the upstream": {func(l *Listener, _ *Upstream) {
			l.Upstream, l.Routes = "", []Route{{SNI: []string{"a"}, Upstream: "u"}}
		}, true},
	} {
		l, u := Listener{Address: []string{"127.0.0.1:80"}, Upstream: "u"}, Upstream{Servers: Targets("a:1")}
		tt.change(&l, &u)
		c := Config{Listeners: map[string]Listener{"l": l}, Upstreams: map[string]Upstream{"u": u}}
		var got []string
		for _, n := range c.Wants() {
			got = append(got, n.Capability)
		}
		want := splice.WireCapabilities()
		if !tt.want {
			want = nil
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
