// Package spliced_test holds the rule of who may import whom.
package spliced_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/spliced-io/spliced"

// layers lists the packages from the top down: each may import what stands
// below it, never what stands above or beside it. A package stands for the
// ones under it too, unless they have a line of their own.
var layers = [][]string{
	{"cmd/spliced"},
	{"proxy"},
	{"proxy/internal/access", "proxy/internal/clienthello", "proxy/internal/detect", "proxy/internal/parcel", "proxy/internal/peek", "proxy/internal/proxyproto", "proxy/internal/testcert", "proxy/internal/tlsfiles"},
	{"internal/netbench", "internal/fio"},
	{"splice/conformance"},
	{"internal/testnet/browser"},
	{"internal/testnet"},
	{"splice"},
	{"internal/engine"},
	{"internal/engine/copy", "internal/engine/splice", "internal/engine/sockmap", "internal/engine/wire", "internal/transfer"},
	{"internal/engine/flow"},
	{"internal/sockmaps"},
	{"internal/bpf"},
	{"internal/pipe"},
	{"internal/probe", "internal/privilege"},
	{"internal/nearest"},
	{"internal/sys"},
}

// onlyIn names, for what not everybody may import, who may.
var onlyIn = map[string][]string{
	"golang.org/x/sys/unix":        {"internal/sys"},
	"golang.org/x/sys/windows":     {"internal/sys"},
	"net/http":                     {"cmd/spliced", "proxy", "internal/netbench"},
	"github.com/prometheus":        {"cmd/spliced", "proxy", "internal/netbench"},
	"github.com/alecthomas/kong":   {"cmd/spliced"},
	"github.com/spf13/cobra":       {"cmd/spliced"},
	"log/slog":                     {"cmd/spliced", "proxy"},
	"log":                          {"cmd/spliced"},
	"testing":                      {"internal/testnet", "splice/conformance"},
	"github.com/vishvananda/netns": {"internal/testnet", "internal/netbench"},
}

// libraryNeeds is all that the public library may bring along beside the
// standard library.
var libraryNeeds = []string{
	module,
	"golang.org/x/sys",
	"github.com/cilium/ebpf",
	"github.com/vishvananda/netlink",
	"github.com/vishvananda/netns", // which netlink brings along
}

type goPackage struct {
	ImportPath   string
	Standard     bool
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func TestImportsPointDown(t *testing.T) {
	t.Parallel()
	for _, os := range []string{"linux", "darwin"} {
		for _, p := range goList(t, os, "./...") {
			from := within(p.ImportPath)
			if from == "" {
				continue
			}
			line, depth := layerOf(from)
			if line == "" {
				t.Errorf("%s is in no layer: give it a line in this test", from)
				continue
			}
			for _, imported := range p.Imports {
				to := within(imported)
				if to == "" {
					continue
				}
				if toLine, toDepth := layerOf(to); toLine != line && toDepth <= depth {
					t.Errorf("GOOS=%s: %s imports %s, which does not stand below it", os, from, to)
				}
			}
		}
	}
}

func TestRestrictedImports(t *testing.T) {
	t.Parallel()
	for _, os := range []string{"linux", "darwin", "windows"} {
		for _, p := range goList(t, os, "./...") {
			for _, imported := range p.Imports {
				for path, allowed := range onlyIn {
					if !under(imported, path) || path == "log" && imported != path || path == "testing" && imported != path {
						continue
					}
					if !slices.ContainsFunc(allowed, func(dir string) bool { return under(within(p.ImportPath), dir) }) {
						t.Errorf("GOOS=%s: %s imports %s: only %s may", os, p.ImportPath, imported, strings.Join(allowed, ", "))
					}
				}
			}
		}
	}
}

// The rule about system calls holds for tests too.
func TestSystemCallsInOnePackage(t *testing.T) {
	t.Parallel()
	for _, p := range goList(t, "linux", "./...") {
		for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if under(imported, "golang.org/x/sys") && within(p.ImportPath) != "internal/sys" {
				t.Errorf("%s imports %s, its tests included: only internal/sys may", p.ImportPath, imported)
			}
		}
	}
}

func TestLibraryStaysSmall(t *testing.T) {
	t.Parallel()
	for _, os := range []string{"linux", "darwin", "freebsd", "windows"} {
		for _, p := range goList(t, os, "-deps", "./splice") {
			if p.Standard {
				// The standard library is free, but for its largest rooms.
				if under(p.ImportPath, "net/http") || p.ImportPath == "testing" {
					t.Errorf("GOOS=%s: package splice depends on %s", os, p.ImportPath)
				}
				continue
			}
			if !slices.ContainsFunc(libraryNeeds, func(path string) bool { return under(p.ImportPath, path) }) {
				t.Errorf("GOOS=%s: package splice depends on %s", os, p.ImportPath)
			}
		}
	}
}

// within returns the path of a package inside the module, or "".
func within(importPath string) string {
	rest, ok := strings.CutPrefix(importPath, module+"/")
	if !ok {
		return ""
	}
	return rest
}

// layerOf returns the closest line of layers that dir belongs to, and how far
// down it stands; "" if there is none.
func layerOf(dir string) (line string, depth int) {
	for i, layer := range layers {
		for _, name := range layer {
			if under(dir, name) && len(name) > len(line) {
				line, depth = name, i
			}
		}
	}
	return line, depth
}

func under(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

func goList(t *testing.T, goos string, args ...string) []goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-e", "-json=ImportPath,Standard,Imports,TestImports,XTestImports"}, args...)...)
	cmd.Env = append(cmd.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	var packages []goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	if len(packages) == 0 {
		t.Fatalf("go list %v found no package", args)
	}
	return packages
}
