package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/spliced-io/spliced/internal/probe"
	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/splice"
)

// What can be seen from outside is in docs/relay.md.
func TestDocs(t *testing.T) {
	b, err := os.ReadFile("../../docs/relay.md")
	if err != nil {
		t.Fatal(err)
	}
	docs := string(b)
	documented := func(what, name string) {
		t.Helper()
		if !strings.Contains(docs, "`"+name+"`") {
			t.Errorf("%s `%s` is not in docs/relay.md", what, name)
		}
	}
	help, _, _ := execute(t, "relay", "--help")
	flags := regexp.MustCompile(`(?m)^ +(--[a-z-]+)=`).FindAllStringSubmatch(help, -1)
	if len(flags) < 9 {
		t.Errorf("flags %q in %s", flags, help)
	}
	for _, f := range flags {
		documented("flag", f[1])
	}
	for r := range reasonCount {
		documented("reason", splice.Reason(r).String())
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(newCollector(&proxy.Server{}, newEvents(newLogger(os.Stderr, "text"))))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		documented("metric", f.GetName())
	}
	for _, c := range probe.Run(t.Context()).Capabilities {
		if group, x, ok := strings.Cut(c.Name, "."); ok && !strings.HasPrefix(c.Name, "pipe.") {
			if !strings.Contains(docs, "`"+group+".X") {
				t.Errorf("group %s of capabilities is not in docs/relay.md", group)
			}
			for _, kind := range regexp.MustCompile(`-to-`).Split(x, -1) {
				if kind != "tcp" {
					documented("kind", kind)
				}
			}
		} else {
			documented("capability", c.Name)
		}
	}
}

// The metrics of the daemon's listeners and servers are those of docs/run.md, with their
// labels.
func TestRunDocs(t *testing.T) {
	b, err := os.ReadFile("../../docs/run.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]string)
	for _, m := range regexp.MustCompile("(?m)^\\| `(spliced_\\w+)` \\| ([^|]*) \\|").FindAllStringSubmatch(string(b), -1) {
		documented[m[1]] = strings.ReplaceAll(m[2], "`", "")
	}
	descs := make(chan *prometheus.Desc, 1000)
	newRunCollector(&proxy.Server{}).Describe(descs)
	close(descs)
	for d := range descs {
		m := regexp.MustCompile(`fqName: "(\w+)".*variableLabels: {([^}]*)}`).FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("no name in %s", d)
		}
		if labels, ok := documented[m[1]]; !ok || labels != strings.ReplaceAll(m[2], ",", ", ") {
			t.Errorf("%s has the labels %s, in docs/run.md it has %q", m[1], m[2], labels)
		}
		delete(documented, m[1])
	}
	for name := range documented {
		t.Errorf("docs/run.md has %s, which there is not", name)
	}
}
