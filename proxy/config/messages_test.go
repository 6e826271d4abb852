package config

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spliced-io/spliced/proxy"
)

// Each place of the sources that finds something wrong is come to here, and what it says
// names the file, the line, the column and what would be right.
func TestMessages(t *testing.T) {
	t.Parallel()
	var said []string
	for name, m := range map[string]map[string]mistake{"mistakes": mistakes(), "nonsense": nonsense(), "transparent": transparentMistakes()} {
		for what, tc := range m {
			_, err := load(tc.text)
			var ps Problems
			if err != nil && !errors.As(err, &ps) {
				t.Fatal(err)
			}
			for _, p := range ps {
				said = append(said, p.Message)
				// What is wrong with nothing at all has no place.
				if whole := tc.text == "" || strings.Contains(p.Message, "several documents"); p.File != "c.yaml" || (p.Line == 0 || p.Column == 0) != whole {
					t.Errorf("%s: %s: the place is %s:%d:%d", name, what, p.File, p.Line, p.Column)
				}
			}
		}
	}
	many := map[string]string{"c.yaml": "include: '*.more'\n"}
	for i := range maxFiles {
		many[strconv.Itoa(i)+".more"] = ""
	}
	for _, files := range []map[string]string{
		{"c.yaml": "include: c.yaml\n" + minimal},
		{"c.yaml": "include: a.yaml\n" + minimal, "a.yaml": "log: {level: info}\n---\n{}\n"},
		{"c.yaml": "include: a.yaml\nmetrics: ':1'\n" + minimal, "a.yaml": "metrics: ':2'\n" + minimal},
		many,
		{},
	} {
		_, err := memory(files, nil).Load("c.yaml")
		var ps Problems
		if !errors.As(err, &ps) {
			t.Fatalf("%v: %v", files, err)
		}
		for _, p := range ps {
			said = append(said, p.Message)
		}
	}
	// What only a program can say.
	for _, c := range []proxy.Config{
		{MaxConnections: -1},
		{Listeners: map[string]proxy.Listener{"l": {Routes: []proxy.Route{{Source: []netip.Prefix{{}}}}}}},
		{Listeners: map[string]proxy.Listener{"l": {Limits: proxy.Limits{LifetimeJitter: 101}}}, Upstreams: map[string]proxy.Upstream{"u": {}}},
		{Upstreams: map[string]proxy.Upstream{"u": {Servers: proxy.Targets("a:1"), TLS: &proxy.UpstreamTLS{}}}, Listeners: map[string]proxy.Listener{"l": {TLS: &proxy.ListenerTLS{}}}},
	} {
		for _, p := range c.Check() {
			said = append(said, p.Message)
		}
	}
	right := regexp.MustCompile(`\bwant |did you mean `)
	others := regexp.MustCompile(`^read |^include |^could not find|^unexpected|^sequence|^mapping`) // the system's words, and the parser's
	for _, message := range said {
		if !right.MatchString(message) && !others.MatchString(message) {
			t.Errorf("%q does not say what would be right", message)
		}
	}

	for _, file := range []string{
		"decode.go", "expand.go", "load.go", "../addr.go", "../conflict.go", "../destination.go", "../shadow.go", "../source.go", "../tcp.go", "../validate.go",
		"../validate_upstream.go", "../values.go", "../internal/setting/text.go",
	} {
		for _, format := range messages(t, file) {
			if !slices.ContainsFunc(said, formatted(format).MatchString) {
				t.Errorf("%s: %q is said of no row", file, format)
			}
		}
	}
}

// elsewhere are messages that no configuration leads to.
var elsewhere = []string{
	"not YAML", // the parser's panics
	"nested too deeply: want at most %d levels",                      // no key is so deep; a key that is unknown is not gone into
	"the file is too large for a configuration: want at most %d MiB", // TestTooLarge
	"address: want one like 10.0.0.1 or fd00::1",                     // no key is one alone
}

// checkers are the functions, and the receivers of methods, that find what is wrong.
var checkers = regexp.MustCompile(`^(checker|decoder|loader|UnmarshalText|SetText|foreign|ParseAddr|parse.*|check.*|oneMachine|unescape|isVariable|readFile)$`)

// messages are the texts in a file by which such functions say what is wrong: those with a
// blank.
func messages(t *testing.T, file string) (list []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || !checkers.MatchString(fn.Name.Name) && !checkers.MatchString(receiver(fn)) {
			continue
		}
		ast.Inspect(fn, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if id, ok := call.Fun.(*ast.Ident); ok && id.Name == "panic" {
					return false
				}
			}
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(strings.TrimSpace(text), " ") && !slices.Contains(elsewhere, text) {
				list = append(list, text)
			}
			return true
		})
	}
	if list == nil {
		t.Errorf("%s says nothing", file)
	}
	return list
}

func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return ""
	}
	of := fn.Recv.List[0].Type
	if star, ok := of.(*ast.StarExpr); ok {
		of = star.X
	}
	id, _ := of.(*ast.Ident)
	return id.Name
}

// formatted matches what a format makes.
func formatted(format string) *regexp.Regexp {
	parts := regexp.MustCompile(`%[.0-9]*[a-zA-Z]`).Split(format, -1)
	for i, p := range parts {
		parts[i] = regexp.QuoteMeta(strings.ReplaceAll(p, "%%", "%"))
	}
	return regexp.MustCompile("(?s)" + strings.Join(parts, ".*"))
}
