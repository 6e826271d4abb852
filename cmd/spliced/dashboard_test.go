package main

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/spliced-io/spliced/proxy"
)

// The dashboard asks for metrics and labels that there are.
func TestDashboard(t *testing.T) {
	b, err := os.ReadFile("../../dist/grafana-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
		Templating struct{ List []struct{ Query string } }
	}
	if err := json.Unmarshal(b, &dashboard); err != nil {
		t.Fatal(err)
	}
	labels := make(map[string]string) // of a metric, as its description has them
	descs := make(chan *prometheus.Desc, 1000)
	server := &proxy.Server{}
	newRunCollector(server).Describe(descs)
	newCollector(server, newEvents(newLogger(os.Stderr, "text"))).Describe(descs)
	close(descs)
	described := regexp.MustCompile(`fqName: "(\w+)".*variableLabels: (.*)}`)
	for d := range descs {
		m := described.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("no name in %s", d)
		}
		labels[m[1]] = m[2]
	}
	metric := regexp.MustCompile(`spliced_\w+`)
	by := regexp.MustCompile(`by \(([^)]*)\)`)
	check := func(where, expr string) {
		names := metric.FindAllString(expr, -1)
		if len(names) == 0 {
			t.Errorf("%s asks for no metric: %s", where, expr)
		}
		for _, name := range names {
			has, ok := labels[strings.TrimSuffix(name, "_bucket")]
			if !ok {
				t.Errorf("%s: there is no metric %s", where, name)
				continue
			}
			for _, group := range by.FindAllStringSubmatch(expr, -1) {
				for label := range strings.SplitSeq(group[1], ", ") {
					if label != "instance" && label != "le" && !regexp.MustCompile(`\b`+label+`\b`).MatchString(has) {
						t.Errorf("%s: %s has no label %s, but %s", where, name, label, has)
					}
				}
			}
		}
	}
	if len(dashboard.Panels) < 10 {
		t.Errorf("only %d panels", len(dashboard.Panels))
	}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			check(p.Title, target.Expr)
		}
	}
	for _, v := range dashboard.Templating.List {
		if strings.HasPrefix(v.Query, "label_values") {
			check("variable", v.Query)
		}
	}
}
