package adminapi

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// described is what OpenAPI says, as a reader of the file has it.
var described = sync.OnceValue(func() object {
	b, err := json.Marshal(OpenAPI())
	if err != nil {
		panic(err)
	}
	var doc object
	if err := json.Unmarshal(b, &doc); err != nil {
		panic(err)
	}
	return doc
})

// at follows keys.
func at(v any, keys ...string) any {
	for _, k := range keys {
		m, _ := v.(object)
		v = m[k]
	}
	return v
}

// checkAnswer compares an answer with what the description says of its route and
// status.
func checkAnswer(t testing.TB, r *http.Request, x exchange) {
	t.Helper()
	parts, ok := split(r.URL.EscapedPath())
	method := strings.ToLower(r.Method)
	if method == "head" {
		return // it has no content
	}
	var operation any
	for path, operations := range at(described(), "paths").(object) {
		if _, fits := match(path, parts); ok && fits {
			operation = at(operations, method)
		}
	}
	response := at(described(), "components", "responses", "Failure")
	if operation != nil {
		response = at(operation, "responses", strconv.Itoa(x.status))
		if ref, ok := at(response, "$ref").(string); ok {
			response = resolve(ref)
		}
		if response == nil {
			t.Fatalf("%s %s: status %d is not described", r.Method, r.URL, x.status)
		}
	}
	content, _ := at(response, "content").(object)
	if content == nil {
		if len(x.body) > 0 {
			t.Fatalf("%s %s: content that is not described: %s", r.Method, r.URL, x.body)
		}
		return
	}
	kind := x.header.Get("Content-Type")
	if content[kind] == nil {
		t.Fatalf("%s %s: type %q is not described", r.Method, r.URL, kind)
	}
	for line := range strings.Lines(string(x.body)) {
		var v any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%s %s: %v in %q", r.Method, r.URL, err, line)
		}
		if err := fits(at(content, kind, "schema"), v, "answer"); err != nil {
			t.Fatalf("%s %s: %v", r.Method, r.URL, err)
		}
	}
}

func resolve(ref string) any {
	return at(described(), strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
}

// fits says where v is not as schema has it. An answer has no key that the schema
// does not know, although readers have to expect some.
func fits(schema, v any, where string) error {
	s, ok := schema.(object)
	if !ok {
		return fmt.Errorf("%s: no schema", where)
	}
	if ref, ok := s["$ref"].(string); ok {
		return fits(resolve(ref), v, where)
	}
	if enum, ok := s["enum"].([]any); ok && !slices.Contains(enum, v) {
		return fmt.Errorf("%s: %v is none of %v", where, v, enum)
	}
	switch s["type"] {
	case "object":
		m, ok := v.(object)
		if !ok {
			return fmt.Errorf("%s: %T, want an object", where, v)
		}
		required, _ := s["required"].([]any)
		for _, k := range required {
			if _, ok := m[k.(string)]; !ok {
				return fmt.Errorf("%s.%s: missing", where, k)
			}
		}
		properties, _ := s["properties"].(object)
		for k, e := range m {
			p, known := properties[k]
			if !known {
				if p = s["additionalProperties"]; p == nil {
					if properties == nil {
						continue // of any kind
					}
					return fmt.Errorf("%s.%s: not described", where, k)
				}
			}
			if err := fits(p, e, where+"."+k); err != nil {
				return err
			}
		}
	case "array":
		list, ok := v.([]any)
		if !ok {
			return fmt.Errorf("%s: %T, want an array", where, v)
		}
		for i, e := range list {
			if err := fits(s["items"], e, fmt.Sprintf("%s[%d]", where, i)); err != nil {
				return err
			}
		}
	case "string":
		text, ok := v.(string)
		if !ok {
			return fmt.Errorf("%s: %T, want a string", where, v)
		}
		if s["format"] == "date-time" {
			if _, err := time.Parse(time.RFC3339, text); err != nil {
				return fmt.Errorf("%s: %w", where, err)
			}
		}
	case "boolean":
		if _, ok := v.(bool); !ok {
			return fmt.Errorf("%s: %T, want a boolean", where, v)
		}
	case "integer", "number":
		n, ok := v.(float64)
		if !ok || s["type"] == "integer" && n != math.Trunc(n) || s["minimum"] != nil && n < s["minimum"].(float64) {
			return fmt.Errorf("%s: %v, want %v", where, v, s)
		}
	default:
		return fmt.Errorf("%s: type %v", where, s["type"])
	}
	return nil
}

// docs/openapi.json is what the program says.
func TestOpenAPIFileIsCurrent(t *testing.T) {
	b, err := os.ReadFile("../../../../docs/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var file any
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	have, _ := json.Marshal(file)
	if want, _ := json.Marshal(described()); string(have) != string(want) {
		t.Error("docs/openapi.json is out of date: go run ./cmd/spliced openapi >docs/openapi.json")
	}
}

// docs/run.md has every code with its status, and every parameter.
func TestDocsHaveEveryCode(t *testing.T) {
	b, err := os.ReadFile("../../../../docs/run.md")
	if err != nil {
		t.Fatal(err)
	}
	_, chapter, _ := strings.Cut(string(b), "## The admin API")
	chapter, _, _ = strings.Cut(chapter, "### Who may")
	for _, code := range codes() {
		before, _, found := strings.Cut(chapter, "`"+string(code)+"`")
		status := strconv.Itoa(statusOf[code])
		if at := strings.LastIndex(before, status); !found || at < 0 || strings.Contains(before[at:], ";") {
			t.Errorf("%s is not there with %s", code, status)
		}
	}
	for _, r := range routes() {
		for _, p := range r.query {
			if !strings.Contains(chapter, "`"+p.name) {
				t.Errorf("parameter %s of %s is not there", p.name, r.path)
			}
		}
	}
}

// Whatever refers to something finds it, and names are there once.
func TestOpenAPIHoldsTogether(t *testing.T) {
	seen := make(map[any]bool)
	refs := 0
	var walk func(v any, where string)
	walk = func(v any, where string) {
		switch v := v.(type) {
		case object:
			if ref, ok := v["$ref"].(string); ok {
				if refs++; resolve(ref) == nil {
					t.Errorf("%s: %s leads nowhere", where, ref)
				}
			}
			if id := v["operationId"]; id != nil {
				if seen[id] {
					t.Errorf("%s: %v is there twice", where, id)
				}
				seen[id] = true
				for _, key := range []string{"summary", "description"} {
					if text, _ := v[key].(string); text == "" {
						t.Errorf("%s has no %s", where, key)
					}
				}
			}
			for k, e := range v {
				walk(e, where+"."+k)
			}
		case []any:
			for i, e := range v {
				walk(e, fmt.Sprintf("%s[%d]", where, i))
			}
		}
	}
	walk(described(), "")
	if len(seen) != len(routes()) || refs < 20 {
		t.Errorf("%d operations of %d routes, %d references", len(seen), len(routes()), refs)
	}
	for _, code := range codes() {
		if statusOf[code] < 400 {
			t.Errorf("%s has the status %d", code, statusOf[code])
		}
	}
}

// The answers of a server that has something to tell are as described: see
// checkAnswer.
func TestAnswersAreDescribed(t *testing.T) {
	s := newStand(t, "127.0.0.1:1", "127.0.0.1:2")
	for _, p := range []string{"/v1/status", "/v1/listeners", "/v1/upstreams", "/v1/sessions", "/v1/log-level", "/v1/openapi.json"} {
		if x := s.do(t, "GET", p, ""); x.status != http.StatusOK || len(x.body) == 0 {
			t.Errorf("%s: %d", p, x.status)
		}
	}
	if x := s.do(t, "POST", "/v1/upstreams/web/servers/127.0.0.1:1/weight", `{"weight": 2}`, "Content-Type", asJSON); x.status != http.StatusOK {
		t.Errorf("%d %s", x.status, x.body)
	}
}
