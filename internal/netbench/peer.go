package netbench

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A Proxy is a path that the caller names.
type Proxy struct {
	Name string
	// Command is run by the shell, where this process is. {listen} and {target} stand for host:port;
	// {listen_host}, {listen_port}, {target_host} and {target_port} for the
	// parts.
	Command string
}

// maxName bounds a name that the caller gives a path, in bytes.
const maxName = 64

// speakable tells whether a name can stand in tables and on terminals.
func speakable(name string) bool {
	return len(name) <= maxName && utf8.ValidString(name) &&
		!strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) })
}

// ParseProxy reads NAME=COMMAND.
func ParseProxy(text string) (Proxy, error) {
	name, command, ok := strings.Cut(text, "=")
	switch {
	case !ok || name == "" || strings.ContainsAny(name, " \t/,{}"):
		return Proxy{}, usagef("proxy %q: want 'NAME=COMMAND with {listen} and {target}'", text)
	case !speakable(name):
		return Proxy{}, usagef("proxy %q: want a name of printable characters, at most %d bytes", text, maxName)
	case isPath(name):
		return Proxy{}, usagef("proxy %q: %s is a path of its own, choose another name", text, name)
	case !strings.Contains(command, "{listen"), !strings.Contains(command, "{target"):
		return Proxy{}, usagef("proxy %q: the command must contain {listen} and {target}", text)
	}
	return Proxy{name, command}, nil
}

// peer knows how to start what is between A and C.
type peer struct {
	path    string
	program string // looked for in PATH; empty for this program
	role    string // of this program, instead of a command
	custom  bool   // the caller's command: its paths are relative to where we are
	version []string
	// configure returns the command and, if there is one, the configuration
	// that it has written to a file in dir.
	configure func(at endpoints, dir string) (command []string, configuration string, err error)
}

// newPeer returns nil for the direct path, which has none.
func newPeer(path string, proxies []Proxy, self, relay []string) (*peer, error) {
	switch path {
	case PathDirect:
		return nil, nil
	case PathCopy, PathSplice, PathSockmap, PathWire, PathAuto:
		return &peer{path: path, configure: func(at endpoints, _ string) ([]string, string, error) {
			return append(relay[:len(relay):len(relay)], "--engine", path, at.Listen, at.Target), "", nil
		}}, nil
	case PathGoCopy:
		return &peer{path: path, role: RoleGoCopy, configure: func(endpoints, string) ([]string, string, error) {
			return append(self[:len(self):len(self)], RoleGoCopy), "", nil
		}}, nil
	case PathHAProxy, PathHAProxySplice:
		return haproxy(path), nil
	case PathNginx:
		return nginx(), nil
	case PathSocat:
		return socat(), nil
	}
	for _, p := range proxies {
		if p.Name == path {
			return custom(p), nil
		}
	}
	return nil, usagef("path %q: want one of %s, or a name given with --proxy", path, strings.Join(Paths(), ", "))
}

// describe says what the peer is, before it is first started. tool is this
// program's name and version.
func (p *peer) describe(ctx context.Context, tool string) Peer {
	d := Peer{Path: p.path, Name: p.program}
	switch {
	case p.path == PathGoCopy:
		d.Name, d.Version = "io.Copy", runtime.Version()
	case p.program == "":
		d.Name, d.Version = "spliced", tool
	default:
		if _, err := exec.LookPath(p.program); err != nil {
			d.Missing = err.Error()
			return d
		}
		d.Version = firstLine(ctx, p.version)
	}
	return d
}

// firstLine is what a command says about its version: the first line with a
// digit in it.
func firstLine(ctx context.Context, command []string) string {
	if command == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, _ := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
	for line := range bytes.Lines(out) {
		if bytes.ContainsAny(line, "0123456789") {
			return strings.TrimSpace(string(line))
		}
	}
	return ""
}

func haproxy(path string) *peer {
	return &peer{
		path: path, program: "haproxy", version: []string{"haproxy", "-v"},
		configure: func(at endpoints, dir string) ([]string, string, error) {
			// Two descriptors a connection, and two a pipe. More than the limit
			// allows, and it refuses to start.
			conns := min(25000, (descriptorLimit()-500)/4)
			// Who copies does so in fewer steps: docs/bench.md has the figures.
			tuning, option := "\ttune.bufsize 262144\n", ""
			if path == PathHAProxySplice {
				tuning = fmt.Sprintf("\tmaxpipes %d\n\ttune.pipesize %d\n", conns, pipeSizeLimit())
				// splice-auto leaves most of a single stream to be copied.
				option = "\toption splice-request\n\toption splice-response\n"
			}
			text := fmt.Sprintf(`global
	nbthread %d
	maxconn %d
%sdefaults
	mode tcp
	timeout connect 10s
	timeout client 1h
	timeout server 1h
	timeout tunnel 1h
%slisten relay
	bind %s
	server sink %s
`, runtime.NumCPU(), conns, tuning, option, at.Listen, at.Target)
			file := filepath.Join(dir, "haproxy.cfg")
			return []string{"haproxy", "-db", "-f", file}, text, os.WriteFile(file, []byte(text), 0o600)
		},
	}
}

func nginx() *peer {
	return &peer{
		path: PathNginx, program: "nginx", version: []string{"nginx", "-v"},
		configure: func(at endpoints, dir string) ([]string, string, error) {
			module := ""
			conns := min(60000, descriptorLimit()-100)
			// Where the stream module is built in there is no file.
			if path := "/usr/lib/nginx/modules/ngx_stream_module.so"; exists(path) {
				module = "load_module " + path + ";\n"
			}
			if os.Geteuid() == 0 {
				module += "user root;\n" // dir is ours alone
			}
			text := fmt.Sprintf(`%[1]sdaemon off;
worker_processes auto;
worker_rlimit_nofile %[5]d;
pid %[2]s/nginx.pid;
error_log %[2]s/nginx-error.log error;
events {
	worker_connections %[5]d;
}
stream {
	access_log off;
	tcp_nodelay on;
	server {
		listen %[3]s reuseport backlog=4096 so_keepalive=off;
		proxy_pass %[4]s;
		proxy_buffer_size 64k;
		proxy_half_close on;
		proxy_connect_timeout 10s;
		proxy_timeout 1h;
	}
}
`, module, dir, at.Listen, at.Target, conns)
			file := filepath.Join(dir, "nginx.conf")
			return []string{"nginx", "-p", dir, "-e", filepath.Join(dir, "nginx-error.log"), "-c", file}, text,
				os.WriteFile(file, []byte(text), 0o600)
		},
	}
}

func socat() *peer {
	return &peer{
		path: PathSocat, program: "socat", version: []string{"socat", "-V"},
		configure: func(at endpoints, _ string) ([]string, string, error) {
			host, port, err := net.SplitHostPort(at.Listen)
			if err != nil {
				return nil, "", err
			}
			return []string{
				"socat", "-b", "262144", "-t", "3600",
				fmt.Sprintf("TCP4-LISTEN:%s,bind=%s,fork,reuseaddr,backlog=4096,nodelay", port, host),
				fmt.Sprintf("TCP4:%s,nodelay", at.Target),
			}, "", nil
		},
	}
}

func custom(p Proxy) *peer {
	return &peer{path: p.Name, program: "sh", custom: true, configure: func(at endpoints, _ string) ([]string, string, error) {
		listenHost, listenPort, err := net.SplitHostPort(at.Listen)
		if err != nil {
			return nil, "", err
		}
		targetHost, targetPort, err := net.SplitHostPort(at.Target)
		if err != nil {
			return nil, "", err
		}
		command := strings.NewReplacer(
			"{listen}", at.Listen, "{target}", at.Target,
			"{listen_host}", listenHost, "{listen_port}", listenPort,
			"{target_host}", targetHost, "{target_port}", targetPort,
		).Replace(p.Command)
		return []string{"sh", "-c", command}, "", nil
	}}
}

func isPath(name string) bool {
	for _, path := range Paths() {
		if path == name {
			return true
		}
	}
	return false
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
