package config

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/spliced-io/spliced/proxy"
)

// What makes no sense with original destinations and the addresses of others is
// told with its place.
func TestTransparentMistakes(t *testing.T) {
	t.Parallel()
	tellAll(t, transparentMistakes())
}

func transparentMistakes() map[string]mistake {
	with := func(listener, upstream string) string {
		return "listeners:\n  web:\n    address: \":443\"\n    upstream: web\n" + listener + "upstreams:\n  web:\n    servers: original-destination\n" + upstream
	}
	const alone = "original-destination is whatever each client has dialled: "
	return map[string]mistake{
		"fine":         {with("    socket: {transparent: true}\n", "    source_address: client\n"), ""},
		"wordy":        {with("    engine: splice\n", "    balance: round-robin\n    slow_start: never\n    max_connections: 5\n"), ""},
		"two servers":  {strings.Replace(with("", ""), "original-destination", "[\"a:1\", original-destination]", 1), "c.yaml:7:22: " + alone + "want no other server beside it"},
		"health":       {with("", "    health:\n"), "c.yaml:8:13: " + alone + "there is no server to check"},
		"balance":      {with("", "    balance: maglev\n"), "c.yaml:8:14: " + alone + "maglev has nothing to choose from"},
		"slow start":   {with("", "    slow_start: 3s\n"), "c.yaml:8:17: " + alone + "there is no server that could come up slowly"},
		"panic":        {with("", "    panic_threshold: 10%\n"), "c.yaml:8:22: " + alone + "there are no servers of which a part could be down"},
		"source":       {with("", "    source_address: clients\n"), `c.yaml:8:21: "clients" is no address: want one like 10.0.0.1, or client`},
		"wire, both":   {with("    engine: wire\n    socket: {transparent: true}\n", ""), "c.yaml:5:13: connections to others' addresses can't be handed over: want another engine than wire"},
		"wire":         {with("    engine: wire\n", ""), "c.yaml:5:13: connections of upstream web, under others' addresses, can't be handed over"},
		"wire, named":  {with("    engine: wire\n    proxy_from: 10.0.0.1/32\n", ""), ""},
		"wire, source": {with("    engine: wire\n    proxy_from: 10.0.0.1/32\n", "    source_address: client\n"), "c.yaml:5:13: connections of upstream web"},
		"mptcp":        {with("    socket: {mptcp: true}\n", ""), "c.yaml:5:21: where clients of upstream web wanted to go is not known of Multipath TCP"},
		"mptcp, both":  {with("    socket: {mptcp: true, transparent: true}\n", ""), "c.yaml:5:40: tproxy and Multipath TCP exclude each other"},
		"unix":         {strings.Replace(with("", ""), `":443"`, "unix:/a", 1), "c.yaml:3:14: who comes to a unix socket has dialled no original-destination: want proxy_from, or another upstream than web"},
		"unix, named":  {strings.Replace(with("    proxy_from: 10.0.0.1/32\n", ""), `":443"`, "unix:/a", 1), ""},
		"unix, both":   {strings.Replace(with("    socket: {transparent: true}\n", ""), `":443"`, "unix:/a", 1), `c.yaml:5:27: address "unix:/a" is a unix socket, which tproxy sends nothing to`},
		"systemd":      {strings.Replace(with("    socket: {transparent: true}\n", ""), `":443"`, "systemd", 1), "c.yaml:5:27: the service manager makes the socket: want Transparent=yes in its unit, and nothing here"},
		"unix server":  {strings.Replace(with("", "    source_address: client\n"), "original-destination", "unix:/a", 1), `c.yaml:8:21: server "unix:/a" is a unix socket, which clients' addresses mean nothing to`},
		"with a port":  {strings.Replace(with("", ""), "original-destination", "original-destination:0", 1), "the port is the one that the client has dialled: want original-destination"},
	}
}

func TestSource(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]proxy.Source{
		"client":      {Client: true},
		"192.0.2.1":   {Addr: netip.MustParseAddr("192.0.2.1")},
		"2001:db8::1": {Addr: netip.MustParseAddr("2001:db8::1")},
	} {
		f, err := load(minimal[:len(minimal)-len("]}\n")] + "], source_address: \"" + text + "\"}\n")
		if strings.Contains(text, ":") { // the server has IPv4
			if err == nil || !strings.Contains(err.Error(), "the families differ") {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Upstreams["web"].SourceAddress; got != want {
			t.Errorf("%s: %+v", text, got)
		}
		back, err := want.MarshalText()
		if err != nil || string(back) != text {
			t.Errorf("%q, %v, want %q", back, err, text)
		}
	}
}
