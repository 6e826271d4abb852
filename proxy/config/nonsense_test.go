package config

import (
	"errors"
	"strings"
	"testing"
)

// A configuration that is read without a complaint starts, and does what it says: each of
// these was accepted once, and failed at the start, or never did what it asked for. The
// places are those of what is wrong; "" is that nothing is.
func TestNonsense(t *testing.T) {
	t.Parallel()
	tellAll(t, nonsense())
}

// A mistake is a configuration, and a part of what is said of it; "" is nothing.
type mistake struct{ text, want string }

func tellAll(t *testing.T, mistakes map[string]mistake) {
	t.Helper()
	for name, tc := range mistakes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, err := load(tc.text)
			if tc.want == "" {
				if err != nil {
					t.Fatalf("error %v, want none", err)
				}
				if problems := f.Check(); problems != nil { // complete with defaults, as a server has it
					t.Errorf("what was loaded is wrong: %v", problems)
				}
				return
			}
			var ps Problems
			if !errors.As(err, &ps) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v\nwant %s", err, tc.want)
			}
		})
	}
}

func nonsense() map[string]mistake {
	// listener and upstream have keys besides those that they need, routes are those
	// before the listener's upstream.
	listener := func(keys string) string {
		return strings.Replace(minimal, "upstream: web}", "upstream: web, "+keys+"}", 1)
	}
	upstream := func(keys string) string { return strings.Replace(minimal, `443"]}`, `443"], `+keys+"}", 1) }
	address := func(text string) string { return strings.Replace(minimal, `":443"`, text, 1) }
	servers := func(text string) string { return strings.Replace(minimal, `["10.0.0.1:443"]`, text, 1) }
	routes := func(keys string) string { return listener("routes: [" + keys + "]") }
	second := func(text, keys string) string {
		return strings.Replace(minimal, "upstreams:", "  zzz: {address: "+text+", upstream: web"+keys+"}\nupstreams:", 1)
	}
	const original = "[original-destination]"
	return map[string]mistake{
		// Addresses of which only one can be listened at.
		"part of every address":      {second(`"127.0.0.1:443"`, ""), `c.yaml:4:18: address "127.0.0.1:443" is part of ":443", which listener web takes`},
		"every address, after all":   {strings.Replace(second(`":443"`, ""), `":443"`, `"10.0.0.9:443"`, 1), `c.yaml:4:18: address ":443" is more of "10.0.0.9:443", which listener web takes`},
		"every address, otherwise":   {second(`"0.0.0.0:443"`, ""), `c.yaml:4:18: address "0.0.0.0:443" is the same as ":443", which listener web takes: both are every address of IPv4 and IPv6: want one of them`},
		"every address, both in one": {address(`["0.0.0.0:443", "[::]:443"]`), `c.yaml:3:34: address "[::]:443" is the same as "0.0.0.0:443", which listener web takes: both are every address of IPv4 and IPv6: want one of them`},
		"every address, in IPv6":     {second(`"[::]:443"`, ""), `is the same as ":443", which listener web takes`},
		"the same, written longer":   {strings.Replace(second(`"[::1]:443"`, ""), `":443"`, `"[0:0:0:0:0:0:0:1]:443"`, 1), `is the same as "[0:0:0:0:0:0:0:1]:443", which listener web takes`},
		"the same, mapped":           {strings.Replace(second(`"127.0.0.1:443"`, ""), `":443"`, `"[::ffff:127.0.0.1]:443"`, 1), `is the same as "[::ffff:127.0.0.1]:443"`},
		"a name of any case":         {strings.Replace(second(`"LOCALHOST:443"`, ""), `":443"`, `"localhost:443"`, 1), `is the same as "localhost:443"`},
		"another port":               {second(`"127.0.0.1:444"`, ""), ""},
		"any port":                   {strings.Replace(second(`"127.0.0.1:0"`, ""), `":443"`, `":0"`, 1), ""},
		"another address":            {strings.Replace(second(`"127.0.0.2:443"`, ""), `":443"`, `"127.0.0.1:443"`, 1), ""},
		"shared":                     {strings.Replace(second(`"127.0.0.1:443"`, ", socket: {reuse_port: true}"), "upstream: web}", "upstream: web, socket: {reuse_port: true}}", 1), ""},
		"shared by one of them":      {second(`"127.0.0.1:443"`, ", socket: {reuse_port: true}"), `is part of ":443", which listener web takes`},
		"part of its own":            {address(`[":443", "127.0.0.1:443"]`), `c.yaml:3:27: address "127.0.0.1:443" is part of ":443", which listener web takes`},
		"one file":                   {strings.Replace(second(`"unix:/run/../run/s"`, ""), `":443"`, `"unix:/run/s"`, 1), `is the same as "unix:/run/s", which listener web takes`},
		"after all that are passed":  {strings.Replace(second(`"systemd:web"`, ""), `":443"`, `systemd`, 1), `c.yaml:4:18: address "systemd:web" is part of "systemd", which listener web takes`},
		"all others that are":        {strings.Replace(second(`systemd`, ""), `":443"`, `"systemd:web"`, 1), ""},
		"passed to two":              {strings.Replace(second(`"systemd:web"`, ""), `":443"`, `"systemd:web"`, 1), `address "systemd:web" is taken by listener web`},
		"metrics at a listener's":    {minimal + "metrics: 127.0.0.1:443\n", `c.yaml:6:10: address "127.0.0.1:443" is part of ":443", which listener web takes`},
		"admin at a listener's":      {minimal + "admin: [\"unix:/a\", \"127.0.0.1:443\"]\n", `c.yaml:6:20: address "127.0.0.1:443" is part of ":443", which listener web takes`},
		"admin at the metrics'":      {minimal + "metrics: \":9464\"\nadmin: 127.0.0.1:9464\n", `c.yaml:7:8: address "127.0.0.1:9464" is part of ":9464", where the metrics are`},
		"admin at its own":           {minimal + "admin: {address: [\"127.0.0.1:9\", \":9\"], token_file: /t}\n", `c.yaml:6:34: address ":9" is more of "127.0.0.1:9", which is there too`},

		// Addresses that nobody can have.
		"listen as a group":       {address(`"224.0.0.1:443"`), `c.yaml:3:18: address "224.0.0.1:443": a group has no connections`},
		"listen as everybody":     {address(`"255.255.255.255:443"`), `c.yaml:3:18: address "255.255.255.255:443": `},
		"listen without its link": {address(`"[fe80::1]:443"`), `c.yaml:3:18: address "[fe80::1]:443": want its interface too, like [fe80::1%eth0]:443`},
		"listen on its link":      {address(`"[fe80::1%eth0]:443"`), ""},
		"a group as a server":     {servers(`["[ff02::1%eth0]:443"]`), `c.yaml:5:19: address "[ff02::1%eth0]:443": a group has no connections`},
		"server without its link": {servers(`"[fe80::1]:443"`), `c.yaml:5:18: address "[fe80::1]:443": want its interface too`},
		"no such number":          {servers(`"10.0.0.256:443"`), `c.yaml:5:18: address "10.0.0.256:443": "10.0.0.256" is neither a host name nor an IP address`},
		"three numbers":           {address(`"127.0.1:443"`), `"127.0.1" is neither a host name nor an IP address`},
		"a name with a hole":      {servers(`"www..org:443"`), `"www..org" is neither a host name nor an IP address`},
		"a long label":            {servers(`"` + strings.Repeat("a", 64) + `.org:443"`), `is neither a host name nor an IP address`},
		"a name's last dot":       {servers(`"www.example.org.:443"`), ""},
		"original with a port":    {servers(`"original-destination:80"`), `c.yaml:5:18: address "original-destination:80": the port is the one that the client has dialled: want original-destination`},
		"source, a group":         {upstream("source_address: 224.0.0.1"), `c.yaml:5:52: 224.0.0.1: a group has no connections`},
		"source, anything":        {upstream("source_address: 0.0.0.0"), `c.yaml:5:52: 0.0.0.0 is no address of a machine: want one of this machine`},
		"source, of any link":     {servers(`["[fe80::2%eth0]:443"], source_address: "fe80::1"`), `want its interface too, like fe80::1%eth0`},
		"name server, a group":    {upstream(`resolve: {servers: "224.0.0.251:53"}`), `c.yaml:5:55: "224.0.0.251:53": a group has no connections`},
		"name server at port 0":   {upstream(`resolve: {servers: "127.0.0.1:0"}`), `c.yaml:5:55: "127.0.0.1:0": want address:port of a name server`},
		"a record twice":          {servers(`["srv:_a._tcp.b.org", "srv:_a._tcp.b.org"]`), `server "srv:_a._tcp.b.org" is there twice: see number 1`},
		"a server twice":          {servers(`["127.0.0.1:443", "[::ffff:127.0.0.1]:443"]`), `server "[::ffff:127.0.0.1]:443" is there twice: see number 1`},

		// Beside an original destination.
		"original, resolved":     {servers(original + ", resolve: {timeout: 1s}"), `c.yaml:5:51: original-destination is whatever each client has dialled: there is no name to resolve`},
		"original, ejected":      {servers(original + ", ejection: {failures: 2}"), `c.yaml:5:52: original-destination is whatever each client has dialled: it is never ejected`},
		"original, not ejected":  {servers(original + ", ejection: {off: true}"), ""},
		"original, hashed":       {servers(original + ", hash: sni"), `has nothing to choose from`},
		"original, tried again":  {servers(original + ", attempts: 2"), `c.yaml:5:52: original-destination is whatever each client has dialled: there is no other server to try`},
		"original, with a share": {servers("{address: original-destination, weight: 2}"), `there is no other server to share with`},

		// Routes that nobody takes.
		"a route again":           {routes("{sni: a.org, upstream: web}, {sni: a.org, upstream: web}"), `c.yaml:3:79: nobody comes to this route: number 1 has all of its clients`},
		"a route in another":      {routes("{sni: '*.a.org', upstream: web}, {sni: [b.a.org, '*.c.a.org'], alpn: h2, upstream: web}"), `nobody comes to this route: number 1 has all of its clients`},
		"a name two above":        {routes("{sni: ['*.org', x.com], upstream: web}, {sni: c.b.a.org, upstream: web}"), `nobody comes to this route: number 1 has all of its clients`},
		"a network in another":    {routes("{source: 10.0.0.0/8, upstream: web}, {source: 10.1.0.0/16, protocol: ssh, upstream: web}"), `nobody comes to this route`},
		"TLS before its names":    {routes("{protocol: tls, upstream: web}, {sni: a.org, upstream: web}"), `nobody comes to this route`},
		"a network around":        {routes("{source: 10.1.0.0/16, upstream: web}, {source: 10.0.0.0/8, upstream: web}"), ""},
		"a name beside":           {routes("{sni: '*.a.org', upstream: web}, {sni: a.org, upstream: web}"), ""},
		"a narrower one first":    {routes("{sni: a.org, alpn: h2, upstream: web}, {sni: a.org, upstream: web}"), ""},
		"two names for one":       {routes("{name: r, sni: a.org, upstream: web}, {name: r, sni: b.org, upstream: web}"), `c.yaml:3:88: route "r" is there twice: see number 1`},
		"the last one's name":     {routes("{name: default, sni: a.org, upstream: web}"), `c.yaml:3:50: route "default" is what leads to the listener's own upstream: want another name`},
		"a number's name":         {routes("{sni: a.org, upstream: web}, {name: '1', sni: b.org, upstream: web}"), `route "1" is there twice: see number 1`},
		"silent for ever":         {listener("handshake_timeout: never, routes: [{protocol: [ssh, silent], upstream: web}]"), `c.yaml:3:87: nobody is silent: handshake_timeout never comes`},
		"SSH where TLS ends":      {listener("tls: {certificates: /a}, routes: [{protocol: ssh, upstream: web}]"), `where TLS ends only TLS clients are served: want protocol tls, or none`},
		"not negotiated":          {listener("tls: {certificates: /a, alpn: h2}, routes: [{alpn: http/1.1, upstream: web}]"), `"http/1.1" is not negotiated: want it in tls.alpn, which has h2`},
		"none is negotiated":      {listener("tls: {certificates: /a}, routes: [{alpn: h2, upstream: web}]"), `"h2" is not negotiated: want it in tls.alpn`},
		"clients without address": {strings.Replace(routes("{source: 10.0.0.0/8, upstream: web}"), `":443"`, `"unix:/a"`, 1), `clients of a unix socket have no address: want proxy_from, or no source`},

		// What TLS would not take.
		"no protocol":               {routes("{alpn: '', upstream: web}"), `"" is no protocol: want one like h2, of 255 bytes at most`},
		"an endless protocol":       {upstream("tls: {alpn: " + strings.Repeat("a", 256) + "}"), `is no protocol: want one like h2, of 255 bytes at most`},
		"no offer":                  {listener("tls: {certificates: /a, alpn: ''}"), `"" is no protocol`},
		"an authority for nobody":   {listener("tls: {certificates: /a, client_ca: /b}"), `c.yaml:3:76: no certificate is asked of clients: want client_certificate: optional, required or none`},
		"an authority not verified": {upstream("tls: {ca: /b, no_verify: true}"), `any certificate is taken: want no ca, or no no_verify`},
		"a key of nothing":          {upstream("tls: {key: /b}"), `the key is of no certificate: want certificate too`},
		"no name to verify":         {servers(`["unix:/a"], tls: {}`), `a unix socket has no name for its certificate: want server_name`},
		"a name that is none":       {upstream(`tls: {server_name: "a b"}`), `"a b" is no name of a server: want one like www.example.org`},

		// What can't have an effect.
		"wire within a bandwidth":   {listener("engine: wire, limits: {bandwidth: {to_client: 1MB}}"), `c.yaml:3:49: a bandwidth is kept by sockets alone: want another engine than wire, or no bandwidth`},
		"wire within one for all":   {listener("engine: wire, bandwidth: {to_client: 1MB}"), `a bandwidth is kept by sockets alone`},
		"wire of a file":            {strings.Replace(listener("engine: wire"), `":443"`, `"unix:/a"`, 1), `c.yaml:3:52: connections of unix sockets can't be handed over: want another engine than wire`},
		"wire to a file":            {strings.Replace(listener("engine: wire"), `"10.0.0.1:443"`, `"unix:/a"`, 1), `connections of unix sockets can't be handed over`},
		"wire to a file and others": {strings.Replace(listener("engine: wire"), `"10.0.0.1:443"`, `"unix:/a", "10.0.0.1:443"`, 1), ""},
		"down, unchecked":           {upstream("on_down: close"), `c.yaml:5:45: nobody finds a server down: want health, or no on_down`},
		"out for longer than ever":  {upstream("ejection: {time: 10m}"), `c.yaml:5:53: time 10m0s is more than max_time, 5m0s`},
		"a port of a file":          {servers(`["unix:/a"], health: {port: 80}`), `a unix socket has no port`},
		"a name for nobody":         {upstream("health: {server_name: a.org}"), `nobody is told the name: want tls or http`},
		"a name with a line":        {upstream(`health: {http: {}, server_name: "a\r\nb: c"}`), `is no name of a server: want one like www.example.org`},
		"a path with a zero":        {upstream(`health: {http: {path: "/\0"}}`), `want one that begins with /, without blanks`},
		"a method with a tab":       {upstream(`health: {http: {method: "G\tT"}}`), `want a word`},
		"an answer that is longer":  {upstream("health: {expect: " + strings.Repeat("a", 70000) + "}"), `70000 bytes are more than a check reads: want 65536 at most`},
		"no pause between checks":   {upstream("health: {interval: 1ns}"), `c.yaml:5:55: "1ns" is out of bounds: want 1ms to 876000h`},
		"no pause between answers":  {upstream("resolve: {interval: 1us}"), `"1us" is out of bounds: want 1ms to 876000h`},
		"no pause between lines":    {minimal + "log: {interval: 1us}\n", `c.yaml:6:17: "1us" is out of bounds: want 1ms to 876000h`},
		"for ever and a day":        {listener("limits: {idle: 2562047h}"), `c.yaml:3:56: "2562047h" is out of bounds: want 1ms to 876000h`},
		"no time is so long":        {upstream("connect_timeout: 2562047h"), `c.yaml:5:53: "2562047h" is out of bounds`},
		"instance, an endless name": {minimal + "instance: " + strings.Repeat("a", 101) + "\n", `c.yaml:6:11: instance: name "aaaaaaaaaaaaaaaaaaaa"...: want at most 100 characters`},
		"instance, a line":          {minimal + "instance: \"a\\nb\"\n", `c.yaml:6:11: instance: name "a\nb": want letters, digits, - _ and . only`},
		"a route's line":            {routes(`{name: "a\nb", sni: a.org, upstream: web}`), `route "a\nb": want a name of 100 bytes at most, without control characters`},
		"no certificate's file":     {listener(`tls: {certificates: {certificate: ""}}`), `"certificate" is empty: want a value`},
		"a path in words":           {upstream(`health: {http: {path: "/é"}}`), `want one that begins with /, without blanks, escaped`},
		"a month unacknowledged":    {upstream("tcp: {user_timeout: 1000h}"), `1000h0m0s: want 1ms to 596h31m23.647s`},
		"a moment to connect":       {upstream("connect_timeout: 1ns"), `"1ns" is out of bounds: want 1ms to 876000h`},
	}
}
