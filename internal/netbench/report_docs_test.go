package netbench

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestManualKnowsAllNames keeps docs/bench.md complete: every key of the JSON,
// every path, workload and unit.
func TestManualKnowsAllNames(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../docs/bench.md")
	if err != nil {
		t.Fatal(err)
	}
	manual := string(data)
	names := append(Paths(), Workloads()...)
	names = append(names, ModeSleeping, ModeAwake, ModeMixed, ModeUnknown)
	for _, u := range benchstatUnits() {
		names = append(names, u.unit)
	}
	for key := range jsonKeys(reflect.TypeFor[File](), map[string]bool{}) {
		if key == "median" || key == "min" || key == "max" || key == "samples" || key == "percentile" || key == "us" {
			key = `"` + key + `": `
			if !strings.Contains(manual, key) {
				t.Errorf("docs/bench.md does not know %s", key)
			}
			continue
		}
		names = append(names, key)
	}
	if len(names) < 80 {
		t.Fatalf("only %d names: %q", len(names), names)
	}
	for _, name := range names {
		if !strings.Contains(manual, "`"+name+"`") {
			t.Errorf("docs/bench.md does not know `%s`", name)
		}
	}
	for _, c := range allColumns() {
		if last := c.key[strings.LastIndex(c.key, ".")+1:]; !strings.Contains(manual, "`"+last+"`") {
			t.Errorf("column %s is no key of the JSON", c.key)
		}
	}
}

// jsonKeys collects the keys of a type and of all that is in it.
func jsonKeys(t reflect.Type, keys map[string]bool) map[string]bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		return jsonKeys(t.Elem(), keys)
	case reflect.Struct:
		for field := range t.Fields() {
			key, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if key != "" {
				keys[key] = true
				jsonKeys(field.Type, keys)
			}
		}
	default: // scalars and maps have no keys of their own
	}
	return keys
}

// TestColumnsAreAllFigures holds that no figure of a result is forgotten by
// the reports.
func TestColumnsAreAllFigures(t *testing.T) {
	t.Parallel()
	want := map[string]bool{}
	for _, typ := range []reflect.Type{reflect.TypeFor[Result](), reflect.TypeFor[Latency]()} {
		prefix := ""
		if typ == reflect.TypeFor[Latency]() {
			prefix = "latency_us."
		}
		for field := range typ.Fields() {
			if field.Type == reflect.TypeFor[*Figure]() || field.Type == reflect.TypeFor[Figure]() {
				key, _, _ := strings.Cut(field.Tag.Get("json"), ",")
				want[prefix+key] = true
			}
		}
	}
	marked := 0.0
	r := Result{Latency: &Latency{}}
	for _, part := range []reflect.Value{reflect.ValueOf(&r).Elem(), reflect.ValueOf(r.Latency).Elem()} {
		for i := range part.NumField() {
			field := part.Field(i)
			switch field.Type() {
			case reflect.TypeFor[*Figure]():
				marked++
				field.Set(reflect.ValueOf(NewFigure([]float64{marked})))
			case reflect.TypeFor[Figure]():
				marked++
				field.Set(reflect.ValueOf(*NewFigure([]float64{marked})))
			}
		}
	}
	seen := map[float64]string{}
	for _, c := range allColumns() {
		if !want[c.key] {
			t.Errorf("column %s is no figure of a result", c.key)
		}
		delete(want, c.key)
		fig := c.figure(&r)
		if fig == nil {
			t.Errorf("column %s has no figure", c.key)
			continue
		}
		if other := seen[fig.Median]; other != "" {
			t.Errorf("columns %s and %s show the same figure", other, c.key)
		}
		seen[fig.Median] = c.key
	}
	for key := range want {
		t.Errorf("no column shows %s", key)
	}
}
