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
