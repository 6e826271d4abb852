package config

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/proxy/config/internal/fielddocs"
	"github.com/spliced-io/spliced/proxy/internal/setting"
)

// memory is a Reader of files in memory.
func memory(files map[string]string, env map[string]string) Reader {
	return Reader{
		ReadFile: func(name string) ([]byte, error) {
			text, ok := files[name]
			if !ok {
				return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
			}
			return []byte(text), nil
		},
		Glob: func(pattern string) ([]string, error) {
			var names []string
			for name := range files {
				if ok, _ := filepath.Match(pattern, name); ok {
					names = append(names, name)
				}
			}
			return names, nil
		},
		LookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
	}
}

const minimal = `
listeners:
  web: {address: ":443", upstream: web}
upstreams:
  web: {servers: ["10.0.0.1:443"]}
`

func load(text string) (*File, error) {
	return memory(map[string]string{"c.yaml": text}, map[string]string{"PORT": "8443", "EMPTY": ""}).Load("c.yaml")
}

// Where 0 is a value like others it is taken: it is info's, too.
func TestZeros(t *testing.T) {
	t.Parallel()
	f, err := load(strings.Replace(minimal, `"]}`, `"], panic_threshold: 0%}`, 1) + "log: {level: info}\ndrain: {spread: 0%}\n")
	if err != nil {
		t.Fatal(err)
	}
	if f.Log.Level != slog.LevelInfo {
		t.Errorf("level %v", f.Log.Level)
	}
}

func TestByteOrderMark(t *testing.T) {
	t.Parallel()
	if _, err := load("\ufeff" + minimal); err != nil {
		t.Error(err)
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	f, err := load(minimal)
	if err != nil {
		t.Fatal(err)
	}
	l, u := f.Listeners["web"], f.Upstreams["web"]
	if l.Limits.Idle != proxy.Timeout(time.Hour) || l.Limits.Lifetime != proxy.Never || f.Drain.Timeout != proxy.Timeout(30*time.Second) {
		t.Errorf("limits %+v, drain %+v", l.Limits, f.Drain)
	}
	if u.Balance != proxy.RoundRobin || u.ConnectTimeout != proxy.Duration(5*time.Second) || u.Attempts != 3 || u.Health != nil || u.Servers[0].Weight != 1 {
		t.Errorf("upstream %+v", u)
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	f, err := load(`
listeners:
  web:
    address: "127.0.0.1:${PORT}"
    limits: {idle: 0, lifetime: 1h30m, bytes_to_client: 10MiB, lifetime_jitter: 0%}
    routes:
      - {source: [10.0.0.0/8, 10.1.2.3, "fd00::1"], protocol: [tls, ssh], upstream: web}
      - {sni: "${NAME:-a.example.org}", upstream: web}
upstreams:
  web:
    servers:
      - 10.0.0.1:443
      - {address: "10.0.0.2:443", weight: 3, backup: true}
    health:
    balance: maglev
`)
	if err != nil {
		t.Fatal(err)
	}
	l, u := f.Listeners["web"], f.Upstreams["web"]
	if l.Address[0] != "127.0.0.1:8443" || l.Limits.Idle != proxy.Never || l.Limits.Lifetime != proxy.Timeout(90*time.Minute) || l.Limits.BytesToClient != 10<<20 {
		t.Errorf("listener %+v", l)
	}
	if fmt.Sprint(l.Routes[0].Source) != "[10.0.0.0/8 10.1.2.3/32 fd00::1/128]" || len(l.Routes[0].Protocol) != 2 || l.Routes[1].SNI[0] != "a.example.org" {
		t.Errorf("routes %+v", l.Routes)
	}
	if u.Servers[1] != (proxy.Target{Address: "10.0.0.2:443", Weight: 3, Backup: true}) || u.Health == nil || u.Health.Rise != 2 {
		t.Errorf("upstream %+v, health %+v", u, u.Health)
	}
}

// Each mistake is told with its place and what would be right.
func TestMistakes(t *testing.T) {
	t.Parallel()
	tellAll(t, mistakes())
}

func mistakes() map[string]mistake {
	// with puts lines under a listener and an upstream.
	with := func(listener, upstream string) string {
		return "listeners:\n  web:\n    address: \":443\"\n" + listener + "upstreams:\n  web:\n    servers: [\"10.0.0.1:443\"]\n" + upstream
	}
	return map[string]mistake{
		"unknown key":        {with("    upstrem: web\n", ""), `c.yaml:4:5: there is no key "upstrem" here: did you mean "upstream"?`},
		"its own server":     {"listeners:\n  web:\n    address: \":443\"\n    upstream: web\nupstreams:\n  web:\n    servers: [\"10.0.0.1:443\", \"127.0.0.1:443\"]\n", `c.yaml:7:31: server 127.0.0.1:443 is listener web itself`},
		"its own, by name":   {"listeners:\n  web:\n    address: \":443\"\n    upstream: web\nupstreams:\n  web:\n    servers: \"LocalHost:443\"\n", `c.yaml:7:14: server LocalHost:443 is listener web itself`},
		"its own, in IPv6":   {"listeners:\n  web:\n    address: \"0.0.0.0:443\"\n    upstream: web\nupstreams:\n  web:\n    servers: \"[::1]:443\"\n", `c.yaml:7:14: server [::1]:443 is listener web itself`},
		"another, by name":   {"listeners:\n  web:\n    address: \":443\"\n    upstream: web\nupstreams:\n  web:\n    servers: [\"localhost:444\", \"localhost.example.org:443\"]\n", ""},
		"a long key":         {minimal + strings.Repeat("k", 1<<20) + ": 1\n", `kkk…" here`},
		"unknown, not near":  {with("    upstream: web\n    colour: red\n", ""), `c.yaml:5:5: there is no key "colour" here: want one of address, upstream, routes`},
		"unknown top":        {minimal + "listener: {}\n", `c.yaml:6:1: there is no key "listener" here: did you mean "listeners"?`},
		"unknown upstream":   {with("    upstream: wbe\n", ""), `c.yaml:4:15: there is no upstream "wbe": want one of web`},
		"value":              {with("    upstream: web\n", "    balance: round\n"), `c.yaml:8:14: "round" is unknown: want round-robin, least-connections, random-two, first or maglev`},
		"duration":           {with("    upstream: web\n", "    connect_timeout: 5\n"), `c.yaml:8:22: "5" is no time to wait: want one like 250ms`},
		"zero duration":      {with("    upstream: web\n", "    connect_timeout: 0s\n"), `c.yaml:8:22: "0s" is no time to wait`},
		"number":             {with("    upstream: web\n    max_connections: many\n", ""), `c.yaml:5:22: "many" is no number`},
		"no weight":          {strings.Replace(minimal, `["10.0.0.1:443"]`, `{address: "10.0.0.1:443", weight: 0}`, 1), `c.yaml:5:52: weight 0: want 1 or more, or leave it out for 1`},
		"after no byte":      {minimal + "wire: {after_bytes: 0}\n", `c.yaml:6:21: after_bytes 0: want 1 or more, or leave it out for 1MiB`},
		"after no time":      {minimal + "wire: {after_age: 0}\n", `c.yaml:6:19: "0" is no time to wait: want one like 250ms`},
		"negative":           {with("    upstream: web\n    max_connections: -1\n", ""), `c.yaml:5:22: "-1" is no number: want a whole one, 0 or more`},
		"percent":            {with("    upstream: web\n", "    panic_threshold: 50\n"), `c.yaml:8:22: "50" is no part of a whole: want one like 50%`},
		"bool":               {with("    upstream: web\n    socket: {mptcp: yes}\n", ""), `c.yaml:5:21: "yes" is neither: want true or false`},
		"list for one":       {with("    upstream: [web]\n", ""), `c.yaml:4:15: want one value, not a list`},
		"keys for one":       {with("    upstream: {a: b}\n", ""), `want one value, not keys`},
		"one for keys":       {with("    upstream: web\n    limits: 3s\n", ""), `c.yaml:5:13: want keys (idle, half_close`},
		"missing key":        {"listeners:\n  web:\n    upstream: web\nupstreams:\n  web: {servers: [\"10.0.0.1:1\"]}\n", `c.yaml:3:5: "address" is missing`},
		"nothing":            {"", `c.yaml: there is no listener: want at least one`},
		"address":            {strings.Replace(minimal, `":443"`, `"443"`, 1), `c.yaml:3:18: address "443": missing port in address: want host:port`},
		"server":             {strings.Replace(minimal, "10.0.0.1:443", "10.0.0.1:0", 1), `nothing can be reached at port 0`},
		"server name":        {with("    routes: [{sni: \"*\", upstream: web}]\n", ""), `c.yaml:4:20: "*" is no name of a server: want one like www.example.org or *.example.org`},
		"no way":             {with("    max_connections: 1\n", ""), `there is no way to go: want an upstream, or routes`},
		"dead route":         {with("    upstream: web\n    routes: [{upstream: web}]\n", ""), `this route matches every connection: none can get to what comes after it`},
		"name without tls":   {with("    routes: [{sni: a.org, protocol: ssh, upstream: web}]\n", ""), `only TLS clients send names`},
		"reject and go":      {with("    routes: [{sni: a.org, reject: true, upstream: web}]\n", ""), `reject and upstream exclude each other`},
		"hash":               {with("    upstream: web\n", "    hash: sni\n"), `only balance: maglev hashes anything`},
		"escape":             {with("    upstream: web\n", "    health: {send: 'PING\\q'}\n"), `after a backslash`},
		"status":             {with("    upstream: web\n", "    health: {http: {status: ok}}\n"), `status "ok": want one like 200`},
		"variable":           {strings.Replace(minimal, ":443", ":${NOPORT}", 1), `c.yaml:3:18: environment variable NOPORT is not set: want it set, or ${NOPORT:-default}`},
		"dollar":             {strings.Replace(minimal, ":443", ":$PORT", 1), `want ${NAME} for an environment variable`},
		"twice":              {with("    upstream: web\n", "") + "  web: {servers: [\"10.0.0.2:1\"]}\n", `c.yaml:8:3: `},
		"server twice":       {strings.Replace(minimal, `["10.0.0.1:443"]`, `["10.0.0.1:443", "10.0.0.1:443"]`, 1), `server "10.0.0.1:443" is there twice: see number 1`},
		"address twice":      {minimal + "\n", ""},
		"alias":              {"x: &a 1\n" + minimal, `there is no key "x" here`},
		"anchor":             {strings.Replace(minimal, `":443"`, `&a ":443"`, 1), `anchors and aliases are not supported`},
		"name":               {strings.Replace(minimal, "  web: {address", "  \"we b\": {address", 1), `name "we b": want letters, digits, - _ and . only`},
		"broken":             {"listeners: [\n", `c.yaml:1:`},
		"documents":          {minimal + "---\n" + minimal, `several documents`},
		"admin":              {minimal + "admin: 192.0.2.1:1\n", `c.yaml:6:8: address "192.0.2.1:1": whoever can reach it could do anything: want admin.token_file`},
		"admin everywhere":   {minimal + "admin: {address: [\"unix:/a\", \":1\"]}\n", `c.yaml:6:30: address ":1": whoever can reach it`},
		"admin twice":        {minimal + "admin: {address: [\"unix:/a\", \"unix:/a\"]}\n", `c.yaml:6:30: address "unix:/a" is there twice`},
		"admin, no address":  {minimal + "admin: {token_file: /a}\n", `c.yaml:6:21: token_file: there is no admin address`},
		"admin here":         {minimal + "admin: {address: [\"127.0.0.1:1\", \"[::1]:1\", \"localhost:2\"]}\n", ""},
		"admin with a token": {minimal + "admin: {address: \":1\", token_file: /a}\n", ""},
		"instance of a user": {minimal + "instance: edge\nuser: spliced\n", `c.yaml:6:11: instance edge: what is pinned belongs to who starts the process: want no user`},
		"instance, a path":   {minimal + "instance: a/b\n", `c.yaml:6:11: instance "a/b": want the name of a directory`},
		"root of none":       {minimal + "instance_root: /a\n", `c.yaml:6:16: instance_root: there is no instance`},
		"metrics":            {minimal + "metrics: 9464\n", `c.yaml:6:10: address "9464"`},
		"metrics, a file":    {minimal + "metrics: unix:/a\n", `c.yaml:6:10: address "unix:/a": want host:port or :port`},
		"admin address":      {minimal + "admin: 9901\n", `c.yaml:6:8: address "9901"`},
		"address of two":     {strings.Replace(minimal, "upstreams:", "  too: {address: \":443\", upstream: web}\nupstreams:", 1), `address ":443" is taken by listener too`},
		"no address":         {strings.Replace(minimal, `":443"`, "[]", 1), `c.yaml:3:18: the list is empty`},
		"systemd":            {strings.Replace(minimal, `":443"`, `"systemd:"`, 1), `address "systemd:" names no socket: want systemd:NAME or systemd`},
		"systemd's backlog":  {strings.Replace(minimal, `":443", `, `"systemd:a", socket: {backlog: 5}, `, 1), `c.yaml:3:49: the service manager has said how many may wait`},
		"MPTCP of a file":    {strings.Replace(minimal, `":443", `, `"unix:/a", socket: {mptcp: true}, `, 1), `c.yaml:3:45: only TCP sockets that are opened here speak Multipath TCP`},
		"sharing a file":     {strings.Replace(minimal, `":443", `, `"unix:/a", socket: {reuse_port: true}, `, 1), `only TCP sockets that are opened here can share an address`},
		"backlog of a file":  {strings.Replace(minimal, `":443", `, `"unix:/a", socket: {backlog: 5}, `, 1), ""},
		"service record":     {strings.Replace(minimal, "10.0.0.1:443", "srv:", 1), `want srv:_service._tcp.example.org`},
		"route to nowhere":   {with("    routes: [{sni: a.org}]\n", ""), `c.yaml:4:14: the route leads nowhere: want an upstream, or reject: true`},
		"no upstream at all": {"listeners:\n  web: {address: \":443\", upstream: web}\n", `there is no upstream "web": there is none at all`},
		"name, an address":   {with("    routes: [{sni: 10.0.0.1, upstream: web}]\n", ""), `"10.0.0.1" is an address: clients send names only`},
		"network":            {with("    upstream: web\n    allow: 10.0.0.0/33\n", ""), `c.yaml:5:12: "10.0.0.0/33" is no network: want one like 10.0.0.0/8`},
		"allowed and denied": {with("    upstream: web\n    allow: 10.0.0.0/8\n    deny: 10.0.0.0/8\n", ""), `c.yaml:6:11: allow and deny: prefix 10.0.0.0/8 is there twice`},
		"too large a part":   {with("    upstream: web\n    limits: {lifetime_jitter: 150%}\n", ""), `c.yaml:5:31: "150%" is no part of a whole: want one like 50%`},
		"a size":             {with("    upstream: web\n    limits: {bytes_to_client: lots}\n", ""), `c.yaml:5:31: "lots" is no number of bytes`},
		"a size of all":      {with("    upstream: web\n    limits: {bytes_to_client: 10000000TB}\n", ""), `"10000000TB" is no number of bytes`},
		"keepalive":          {with("    upstream: web\n    tcp: {keepalive_idle: 1500ms}\n", ""), `c.yaml:5:27: 1.5s: want whole seconds, 1s to`},
		"keepalive count":    {with("    upstream: web\n    tcp: {keepalive_count: 200}\n", ""), `c.yaml:5:28: 200: want 1 to`},
		"user timeout":       {with("    upstream: web\n", "    tcp: {user_timeout: 1us}\n"), `c.yaml:8:25: "1us" is out of bounds: want 1ms to 876000h`},
		"lowat":              {with("    upstream: web\n", "    tcp: {notsent_lowat: 3GiB}\n"), `c.yaml:8:26: 3221225472 bytes: want 0 to 2147483647`},
		"weight":             {with("    upstream: web\n", "  x:\n    servers: {address: \"10.0.0.1:1\", weight: 2000}\n"), `c.yaml:9:46: weight 2000: want 1 to 1000`},
		"all are backups":    {with("    upstream: web\n", "  x:\n    servers: {address: \"10.0.0.1:1\", backup: true}\n"), `every server is a backup: want one that is not`},
		"families":           {with("    upstream: web\n", "    source_address: ::1\n"), `c.yaml:8:21: server "10.0.0.1:443" can't be reached from ::1: the families differ`},
		"no source":          {with("    upstream: web\n", "    source_address: eth0\n"), `c.yaml:8:21: "eth0" is no address: want one like 10.0.0.1`},
		"level":              {minimal + "log: {level: loud}\n", `c.yaml:6:14: "loud" is no level: want debug, info, warn or error`},
		"engine":             {with("    upstream: web\n    engine: warp\n", ""), `c.yaml:5:13: unknown engine "warp": want auto, copy, splice, sockmap or wire`},
		"name server":        {with("    upstream: web\n", "    resolve: {servers: localhost}\n"), `c.yaml:8:24: "localhost": want address:port of a name server`},
		"check's port":       {with("    upstream: web\n", "    health: {port: 70000}\n"), `c.yaml:8:20: port 70000: want 1 to 65535`},
		"check's path":       {with("    upstream: web\n", "    health: {http: {path: healthz}}\n"), `path "healthz": want one that begins with /`},
		"check's method":     {with("    upstream: web\n", "    health: {http: {method: 'GET /'}}\n"), `method "GET /": want a word`},
		"check's answer":     {with("    upstream: web\n", "    health: {expect: '\\xZZ'}\n"), `want two digits of 0-9, a-f behind \x`},
		"two requests":       {with("    upstream: web\n", "    health: {send: PING, http: {}}\n"), `http sends a request of its own: want send or http`},
		"TLS by wire":        {with("    upstream: web\n    engine: wire\n    tls: {certificates: /a.pem}\n", ""), `c.yaml:5:13: a TLS session that ends here can only be copied: want auto or copy, not wire`},
		"TLS, no clients":    {with("    upstream: web\n    tls: {certificates: /a.pem, client_certificate: required}\n", ""), `want the certificates that those of clients must lead to`},
		"variable, no end":   {strings.Replace(minimal, ":443", ":${PORT", 1), `there is no } to the ${`},
		"variable, no name":  {strings.Replace(minimal, ":443", ":${9}", 1), `"9" is no name of an environment variable`},
		"a long name":        {strings.Replace(minimal, "  web: {address", "  "+strings.Repeat("w", 300)+": {address", 1), `want at most`},
		"a list of names":    {"listeners: [web]\n", `c.yaml:1:12: want names, each with keys of its own, not a list`},
		"empty address":      {strings.Replace(minimal, `":443"`, `""`, 1), `c.yaml:3:18: address "" is empty: want host:port`},
		"no file":            {strings.Replace(minimal, `":443"`, `"unix:"`, 1), `c.yaml:3:18: address "unix:" names no file: want unix:/path`},
		"a zero in a file":   {strings.Replace(minimal, `":443"`, `"unix:/a\0b"`, 1), `a path has no zero byte: want unix:/path`},
		"a long file":        {strings.Replace(minimal, `":443"`, `"unix:/`+strings.Repeat("a", 200)+`"`, 1), `the path has 201 bytes: want at most 103`},
		"a port's name":      {strings.Replace(minimal, `":443"`, `":https"`, 1), `c.yaml:3:18: address ":https": port "https" is no number from 0 to 65535: want host:port`},
		"a limit":            {with("    upstream: web\n    limits: {idle: soon}\n", ""), `c.yaml:5:20: "soon" is no duration: want one like 250ms, 30s or 1h30m, or never`},
		"a tag":              {strings.Replace(minimal, `":443"`, `!!str ":443"`, 1), `c.yaml:3:18: tags are not supported: want the value alone`},
		"a tab":              {"listeners:\n\tweb: {}\n", `c.yaml:2:1: found character '	' that cannot start any token: want spaces to indent, no tab`},
		"indented otherwise": {"listeners:\n  web:\n    address: 127.0.0.1:0\n   upstream: web\n", `c.yaml:4:4: value is not allowed in this context: want each key indented as far as its neighbours`},
		"a brace open":       {"listeners: {web: {address: 127.0.0.1:0}\nupstreams:\n", `',' or '}' must be specified: want a brace or a quote before this closed`},
		"a key twice":        {with("    upstream: web\n    engine: copy\n    engine: copy\n", ""), `c.yaml:6:5: mapping key "engine" already defined at [5:5]`},
		"an empty key":       {with("    upstream: web\n    \"\": b\n", ""), `c.yaml:5:5: want a word as a key`},
		"merged":             {with("    upstream: web\n    <<: {engine: copy}\n", ""), `c.yaml:5:5: merging (<<) is not supported: want it written out, or a file to include`},
		"nested":             {"listeners: " + strings.Repeat("{a: ", 40) + "b" + strings.Repeat("}", 40) + "\n", `c.yaml:1:`},
		"dollars":            {strings.Replace(minimal, `":443"`, `"unix:/a$$b"`, 1), ""},
		"included not there": {"include: more.yaml\n" + minimal, `c.yaml:1:10: read more.yaml: file does not exist`},
	}
}

// All mistakes are told at once, in the order of the file.
func TestEveryMistake(t *testing.T) {
	t.Parallel()
	_, err := load("listeners:\n  a: {adress: \":1\", upstream: web}\n  b: {address: \":1\", upstrem: web}\nupstreams:\n  web: {servers: [\"x:1\"], attempts: few}\n")
	var ps Problems
	if !errors.As(err, &ps) {
		t.Fatal(err)
	}
	var lines []int
	for _, p := range ps {
		lines = append(lines, p.Line)
	}
	if !slices.IsSorted(lines) || !slices.Contains(lines, 2) || !slices.Contains(lines, 3) || !slices.Contains(lines, 5) {
		t.Errorf("lines %v of\n%v", lines, err)
	}
}

func TestInclude(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"etc/c.yaml":        "include: [conf.d/*.yaml, web.yaml]\nlisteners:\n  web: {address: \":443\", upstream: web}\n",
		"etc/web.yaml":      "upstreams:\n  web: {servers: [\"10.0.0.1:1\"]}\n",
		"etc/conf.d/a.yaml": "listeners:\n  a: {address: \":1\", upstream: web}\n",
		"etc/conf.d/b.yaml": "listeners:\n  b: {address: \":2\", upstream: web}\n",
	}
	f, err := memory(files, nil).Load("etc/c.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Listeners) != 3 || len(f.Upstreams) != 1 {
		t.Errorf("%d listeners, %d upstreams", len(f.Listeners), len(f.Upstreams))
	}
	// Nothing is said twice, and each mistake has the file that it is in.
	files["etc/conf.d/b.yaml"] = "listeners:\n  a: {address: \":2\", upstream: web}\ndrain: {timeout: soon}\n"
	_, err = memory(files, nil).Load("etc/c.yaml")
	for _, want := range []string{
		`etc/conf.d/b.yaml:2:3: "a" was said before, at etc/conf.d/a.yaml:2`,
		`etc/conf.d/b.yaml:3:18: "soon" is no duration`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v\nwant %s", err, want)
		}
	}
	// A circle ends.
	files["etc/conf.d/b.yaml"] = "include: ../c.yaml\n"
	if _, err = memory(files, nil).Load("etc/c.yaml"); err == nil || !strings.Contains(err.Error(), "included twice") {
		t.Errorf("a circle: %v", err)
	}
}

// The descriptions of the schema are the comments of the source.
// A file has an end, also where its size does not say so.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "c.yaml")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(f.Truncate(maxFile+1), f.Close())
	if err != nil {
		t.Fatal(err)
	}
	names := []string{name}
	if _, err := os.Stat("/dev/zero"); err == nil {
		names = append(names, "/dev/zero")
	}
	for _, name := range names {
		if _, err := (Reader{}).Load(name); err == nil || !strings.Contains(err.Error(), "too large") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestDocsAreCurrent(t *testing.T) {
	t.Parallel()
	docs, err := fielddocs.Read("file.go", "../config.go", "../config_tls.go")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(docs, fieldDocs()) {
		t.Error("docs_gen.go is out of date: go generate ./proxy/config")
	}
}

// Every key has a comment, and every default can be read.
func TestEveryKey(t *testing.T) {
	t.Parallel()
	docs := fieldDocs()
	seen := make(map[reflect.Type]bool)
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice || typ.Kind() == reflect.Map {
			typ = typ.Elem()
		}
		if seen[typ] || typ.Kind() != reflect.Struct || setting.IsScalar(typ) {
			return
		}
		seen[typ] = true
		for _, f := range setting.Fields(typ) {
			if docs[f.Owner.Name()+"."+f.Name] == "" {
				t.Errorf("%s.%s has no comment", f.Owner.Name(), f.Name)
			}
			walk(f.Type)
		}
		v := reflect.New(typ)
		setting.Fill(v.Interface()) // panics at a default that can't be read
	}
	walk(reflect.TypeFor[File]())
	if len(seen) < 12 {
		t.Errorf("only %d structures", len(seen))
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(minimal)
	f.Add("listeners:\n  web:\n    address: [\":443\", \"unix:/x\"]\n    routes:\n      - {sni: [a.org, \"*.b.org\"], upstream: web}\nupstreams:\n  web:\n    servers: [a:1]\n    health: {send: '\\x00', http: {}}\n")
	f.Add("include: x\n<<: *a\nlog: {level: debug}\n")
	f.Add("listeners: &a [*a]\n")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := load(text)
		if err == nil {
			if problems := file.Config.Check(); problems != nil {
				t.Fatalf("loaded with %v", problems)
			}
			return
		}
		var ps Problems
		if !errors.As(err, &ps) || len(ps) == 0 {
			t.Fatalf("error %v is no list of problems", err)
		}
		for _, p := range ps {
			if p.Message == "" || p.File == "" {
				t.Fatalf("problem %+v", p)
			}
		}
	})
}
