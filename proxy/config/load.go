package config

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/proxy/internal/setting"
)

// The limits of what is read: a mistake, or malice, ends with a message and not
// with the memory.
const (
	maxFile  = 16 << 20
	maxFiles = 1000
	maxDepth = 32 // of YAML's nesting
	patience = 5 * time.Second
)

// A Reader reads files. The zero value reads those of this machine.
type Reader struct {
	// ReadFile is os.ReadFile unless it is set.
	ReadFile func(name string) ([]byte, error)
	// Glob is filepath.Glob unless it is set.
	Glob func(pattern string) ([]string, error)
	// LookupEnv is os.LookupEnv unless it is set.
	LookupEnv func(name string) (string, bool)
	// Files has the certificates, keys and the token that are named read too, as this
	// process would on starting: it is an error if they can't be used.
	Files bool
}

// Load reads a file and those that it includes. The error is of type [Problems]:
// all that is wrong, in itself and with what the parts say of each other.
func (r Reader) Load(name string) (*File, error) {
	if r.ReadFile == nil {
		r.ReadFile = readFile
	}
	if r.Glob == nil {
		r.Glob = filepath.Glob
	}
	if r.LookupEnv == nil {
		r.LookupEnv = os.LookupEnv
	}
	l := &loader{reader: r, places: make(map[string]place), seen: make(map[string]bool)}
	l.load(name, place{file: name})
	if l.problems == nil {
		l.check()
		for _, p := range l.file.Config.Check() {
			l.wrong(l.nearest(p.Path), p.Message)
		}
	}
	if l.problems == nil && r.Files {
		for _, p := range l.file.CheckFiles() {
			l.wrong(l.nearest(p.Path), p.Message)
		}
		if _, _, err := l.file.Admin.ReadToken(); err != nil {
			l.wrong(l.nearest([]string{"admin", "token_file"}), err.Error())
		}
	}
	if l.problems != nil {
		l.sort()
		return nil, l.problems
	}
	setting.Fill(&l.file)
	return &l.file, nil
}

// check looks at what is not package proxy's.
func (l *loader) check() {
	l.checkAdmin(&l.file.Admin)
	l.checkInstance()
	l.checkPlaces()
	if m := l.file.Metrics; m != "" {
		at := l.nearest([]string{"metrics"})
		addr, err := proxy.ParseAddr(m)
		switch {
		case err != nil:
			l.wrong(at, err.Error())
		case addr.Network != "tcp":
			l.wrong(at, fmt.Sprintf("address %q: want host:port or :port", m))
		}
	}
}

func (l *loader) checkInstance() {
	f := &l.file
	switch at := l.nearest([]string{"instance"}); {
	case f.Instance == "" && f.InstanceRoot != "":
		l.wrong(l.nearest([]string{"instance_root"}), "instance_root: there is no instance to pin there: want instance too, or no instance_root")
	case f.Instance == "." || f.Instance == ".." || strings.ContainsAny(f.Instance, "/\x00"):
		l.wrong(at, fmt.Sprintf("instance %q: want the name of a directory", f.Instance))
	case f.Instance != "" && checkName(f.Instance) != nil:
		l.wrong(at, "instance: "+checkName(f.Instance).Error())
	case f.Instance != "" && f.User != "" && f.User != "root" && f.User != "0":
		l.wrong(at, fmt.Sprintf("instance %s: what is pinned belongs to who starts the process: want no user", f.Instance))
	}
}

// checkPlaces finds the addresses of metrics and operators that something else has.
func (l *loader) checkPlaces() {
	type taken struct {
		addr     proxy.Addr
		text, by string
	}
	var all []taken
	for _, name := range slices.Sorted(maps.Keys(l.file.Listeners)) {
		for _, text := range l.file.Listeners[name].Address {
			if addr, err := proxy.ParseAddr(text); err == nil {
				all = append(all, taken{addr, text, "which listener " + name + " takes"})
			}
		}
	}
	check := func(text, by string, path ...string) {
		addr, err := proxy.ParseAddr(text)
		if err != nil || text == "" {
			return
		}
		for _, t := range all {
			if how := addr.Conflicts(t.addr); how != "" {
				l.wrong(l.nearest(path), fmt.Sprintf("address %q is %s %q, %s: want one that is free", text, how, t.text, t.by))
				break
			}
		}
		all = append(all, taken{addr, text, by})
	}
	check(l.file.Metrics, "where the metrics are", "metrics")
	for i, text := range l.file.Admin.Address {
		if !slices.Contains(l.file.Admin.Address[:i], text) { // which is told already
			check(text, "which is there too", "admin", "address", strconv.Itoa(i))
		}
	}
}

func (l *loader) checkAdmin(a *Admin) {
	for i, text := range a.Address {
		at := l.nearest([]string{"admin", "address", strconv.Itoa(i)})
		addr, err := proxy.ParseAddr(text)
		switch {
		case err != nil:
			l.wrong(at, err.Error())
		case slices.Contains(a.Address[:i], text):
			l.wrong(at, fmt.Sprintf("address %q is there twice: want it once", text))
		case a.TokenFile == "" && addr.Network == "tcp" && !isLoopback(addr.Address):
			l.wrong(at, fmt.Sprintf("address %q: whoever can reach it could do anything: want admin.token_file, or unix:/path or 127.0.0.1:port", text))
		}
	}
	if a.TokenFile != "" && len(a.Address) == 0 {
		l.wrong(l.nearest([]string{"admin", "token_file"}), "token_file: there is no admin address to need it at: want admin.address too, or no token_file")
	}
}

// isLoopback says whether an address is one of this machine alone.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// readFile reads a file, which may be a pipe from a command too. One that nobody
// writes to is empty, and one whose writer is silent an error: a daemon that
// waits for either can't be reloaded again.
func readFile(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	_ = f.SetReadDeadline(time.Now().Add(patience))       // files need none
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1)) // a device has no size that says so
	if len(text) > maxFile {
		return nil, fmt.Errorf("the file is too large for a configuration: want at most %d MiB", maxFile>>20)
	}
	return text, err
}

// A place is where something stands.
type place struct {
	file         string
	line, column int
}

type loader struct {
	reader   Reader
	file     File
	places   map[string]place // of keys, by path
	order    []string         // of files
	seen     map[string]bool  // files
	problems Problems
}

func (l *loader) wrong(at place, message string) {
	l.problems = append(l.problems, Problem{File: at.file, Line: at.line, Column: at.column, Message: message})
}

// sort puts the problems in the order of the files, and within them in that of
// the lines.
func (l *loader) sort() {
	slices.SortStableFunc(l.problems, func(a, b Problem) int {
		if c := slices.Index(l.order, a.File) - slices.Index(l.order, b.File); c != 0 {
			return c
		}
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	l.problems = slices.Compact(l.problems)
}

// nearest returns the place of a path, or of as much of it as there is.
func (l *loader) nearest(path []string) place {
	for n := len(path); n > 0; n-- {
		if at, ok := l.places[strings.Join(path[:n], "\x00")]; ok {
			return at
		}
	}
	return place{file: l.order[0]}
}

// load reads one file into the whole. by is the place that includes it.
func (l *loader) load(name string, by place) {
	if l.seen[name] {
		l.wrong(by, "file "+name+" is included twice: want it once")
		return
	}
	if len(l.seen) == maxFiles {
		l.wrong(by, fmt.Sprintf("more than %d files are included: want fewer", maxFiles))
		return
	}
	l.seen[name] = true
	l.order = append(l.order, name)
	text, err := l.reader.ReadFile(name)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		l.wrong(by, "read "+name+": "+err.Error())
		return
	}
	l.file.Sources = append(l.file.Sources, Source{name, sha256.Sum256(text)})
	tree, err := parse(text)
	if err != nil {
		l.syntax(name, err)
		return
	}
	if len(tree.Docs) > 1 {
		l.wrong(place{file: name}, "there are several documents (---) in the file: want one")
		return
	}
	d := decoder{loader: l, file: name}
	var include []string
	for _, doc := range tree.Docs {
		if doc.Body == nil {
			continue
		}
		before := l.file.Include
		l.file.Include = nil
		d.value(doc.Body, reflect.ValueOf(&l.file).Elem(), nil, 0)
		include, l.file.Include = l.file.Include, before
	}
	// The places first: the next file notes its own under the same path.
	at := make([]place, len(include))
	for i := range include {
		at[i] = l.nearest([]string{"include", strconv.Itoa(i)})
	}
	for i, pattern := range include {
		l.include(name, pattern, at[i])
	}
}

func (l *loader) include(from, pattern string, at place) {
	path := pattern
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(from), path)
	}
	names := []string{path}
	if strings.ContainsAny(pattern, "*?[") {
		var err error
		if names, err = l.reader.Glob(path); err != nil {
			l.wrong(at, "include "+pattern+": "+err.Error())
			return
		}
		slices.Sort(names)
	}
	for _, name := range names {
		l.load(name, at)
	}
}

// parse returns the tree. The parser is other people's and fed with anything:
// its panics are errors.
func parse(text []byte) (f *ast.File, err error) {
	defer func() {
		if p := recover(); p != nil {
			f, err = nil, errors.New("not YAML")
		}
	}()
	return parser.ParseBytes(bytes.TrimPrefix(text, []byte("\ufeff")), 0) // editors of Windows put one there
}

// syntax reports what the parser found.
func (l *loader) syntax(name string, err error) {
	var ye yaml.Error
	if errors.As(err, &ye) {
		at := place{file: name}
		if t := ye.GetToken(); t != nil {
			at = placeOf(name, t)
		}
		l.wrong(at, withHint(ye.GetMessage()))
		return
	}
	l.wrong(place{file: name}, err.Error())
}

// withHint adds what would be right to what the parser says of the mistakes that people make.
func withHint(message string) string {
	for _, hint := range [][2]string{
		{"found character '\t' that cannot start any token", "want spaces to indent, no tab"},
		{"value is not allowed in this context", "want each key indented as far as its neighbours"},
		{"',' or '}' must be specified", "want a brace or a quote before this closed"},
	} {
		if strings.Contains(message, hint[0]) {
			return message + ": " + hint[1]
		}
	}
	return message
}

func placeOf(file string, t *token.Token) place {
	if t == nil || t.Position == nil {
		return place{file: file}
	}
	return place{file: file, line: t.Position.Line, column: t.Position.Column}
}
