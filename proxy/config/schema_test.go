package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// fits says where v is not as s has it, in the words of JSON Schema that are used.
func (s *schema) fits(root *schema, v any, where string) error {
	if s.Ref != "" {
		def, ok := root.Defs[strings.TrimPrefix(s.Ref, "#/$defs/")]
		if !ok {
			return fmt.Errorf("%s: there is no %s", where, s.Ref)
		}
		return def.fits(root, v, where)
	}
	if s.AnyOf != nil {
		var errs []error
		for _, one := range s.AnyOf {
			err := one.fits(root, v, where)
			if err == nil {
				return nil
			}
			errs = append(errs, err)
		}
		return fmt.Errorf("%s: none of %v", where, errs)
	}
	kind := map[reflect.Kind]string{
		reflect.String: "string", reflect.Bool: "boolean", reflect.Uint64: "integer", reflect.Int64: "integer", reflect.Float64: "number",
		reflect.Map: "object", reflect.Slice: "array", reflect.Invalid: "null",
	}[reflect.ValueOf(v).Kind()]
	switch types := s.Type.(type) {
	case string:
		if kind != types {
			return fmt.Errorf("%s: %v is no %s", where, v, types)
		}
	case []any:
		if !slices.Contains(types, any(kind)) {
			return fmt.Errorf("%s: %v is none of %v", where, v, types)
		}
	}
	if n := reflect.ValueOf(v); s.Minimum != nil && n.CanInt() && n.Int() < int64(*s.Minimum) || s.Minimum != nil && n.CanUint() && n.Uint() < uint64(*s.Minimum) ||
		s.Maximum != nil && n.CanUint() && n.Uint() > uint64(*s.Maximum) {
		return fmt.Errorf("%s: %v is not from %d to %v", where, v, *s.Minimum, s.Maximum)
	}
	if n, ok := v.(uint64); s.Enum != nil && !slices.Contains(s.Enum, v) && !(ok && slices.Contains(s.Enum, any(float64(n)))) { // JSON has one kind of number
		return fmt.Errorf("%s: %v is none of %v", where, v, s.Enum)
	}
	if text, ok := v.(string); s.Pattern != "" && (!ok || !regexp.MustCompile(s.Pattern).MatchString(text)) {
		return fmt.Errorf("%s: %v does not match %s", where, v, s.Pattern)
	}
	switch v := v.(type) {
	case []any:
		if len(v) < s.MinItems {
			return fmt.Errorf("%s: %d elements", where, len(v))
		}
		for i, e := range v {
			if err := s.Items.fits(root, e, fmt.Sprintf("%s.%d", where, i)); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, key := range s.Required {
			if _, ok := v[key]; !ok {
				return fmt.Errorf("%s: %s is missing", where, key)
			}
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			of, ok := s.Properties[key]
			if !ok {
				if of, ok = s.more(); !ok {
					return fmt.Errorf("%s: there is no %s", where, key)
				}
			}
			if err := of.fits(root, v[key], where+"."+key); err != nil {
				return err
			}
		}
	}
	return nil
}

// more is what keys are to have that are not named, if any may be.
func (s *schema) more() (of schema, ok bool) {
	if s.Additional == false {
		return schema{}, false
	}
	b, err := json.Marshal(s.Additional)
	return of, err == nil && json.Unmarshal(b, &of) == nil
}

// An editor that knows the schema finds nothing wrong with the example, which has every
// key, and finds what a check does.
func TestSchema(t *testing.T) {
	t.Parallel()
	var s schema
	if err := json.Unmarshal(Schema(), &s); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("../../docs/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var example any
	if err := yaml.Unmarshal(b, &example); err != nil {
		t.Fatal(err)
	}
	if err := s.fits(&s, example, "example"); err != nil {
		t.Error(err)
	}
	for name, tt := range map[string]struct {
		text string
		good bool
	}{
		"minimal":       {minimal, true},
		"a version":     {strings.Replace(minimal, "upstream: web}", "upstream: web, tls: {certificates: /a, min_version: '1.2'}}", 1), true},
		"a variable":    {strings.Replace(minimal, "upstream: web}", "upstream: web, socket: {mptcp: '${MPTCP:-true}'}}", 1), true},
		"unknown key":   {strings.Replace(minimal, "upstream: web", "upstrem: web", 1), false},
		"missing key":   {strings.Replace(minimal, `address: ":443", `, "", 1), false},
		"value":         {strings.Replace(minimal, "]}", "], balance: round}", 1), false},
		"older version": {strings.Replace(minimal, "upstream: web}", "upstream: web, tls: {certificates: /a, min_version: 1.1}}", 1), false},
		"number":        {strings.Replace(minimal, "upstream: web}", "upstream: web, max_connections: many}", 1), false},
		"list":          {strings.Replace(minimal, "upstream: web}", "upstream: [web]}", 1), false},
		"no keys":       {"listeners: [web]\n", false},
		// What the loader refuses, and what it takes.
		"no weight":     {strings.Replace(minimal, `["10.0.0.1:443"]`, `{address: "10.0.0.1:443", weight: 0}`, 1), false},
		"weight":        {strings.Replace(minimal, `["10.0.0.1:443"]`, `{address: "10.0.0.1:443", weight: 1}`, 1), true},
		"no attempt":    {strings.Replace(minimal, "]}", "], attempts: 0}", 1), false},
		"no limit":      {strings.Replace(minimal, "]}", "], max_connections: 0}", 1), true},
		"negative":      {strings.Replace(minimal, "]}", "], max_connections: -1}", 1), false},
		"too many":      {strings.Replace(minimal, "]}", "], max_connections: 3000000000}", 1), false},
		"after no byte": {minimal + "wire: {after_bytes: 0}\n", false},
		"after bytes":   {minimal + "wire: {after_bytes: 64KiB, after_age: 1.5s}\n", true},
		"after a word":  {minimal + "wire: {after_bytes: 64 KiB}\n", false},
		"bytes":         {strings.Replace(minimal, "upstream: web}", "upstream: web, limits: {bytes_to_client: 0}}", 1), true},
		"no unit":       {strings.Replace(minimal, "upstream: web}", "upstream: web, limits: {idle: 5}}", 1), false},
		"never":         {strings.Replace(minimal, "upstream: web}", "upstream: web, limits: {idle: never, half_close: 0, lifetime: 1h30m}}", 1), true},
		"never, a time": {strings.Replace(minimal, "]}", "], connect_timeout: never}", 1), false},
		"no part":       {strings.Replace(minimal, "]}", "], panic_threshold: 50}", 1), false},
		"part":          {strings.Replace(minimal, "]}", "], panic_threshold: 12.5%}", 1), true},
		"of a variable": {strings.Replace(minimal, "]}", "], connect_timeout: '${T}', panic_threshold: '${P:-5%}'}", 1), true},
		"several doors": {minimal + "admin: ['unix:/a', '127.0.0.1:9']\n", true},
	} {
		var v any
		if err := yaml.Unmarshal([]byte(tt.text), &v); err != nil {
			t.Fatal(err)
		}
		if err := s.fits(&s, v, "file"); (err == nil) != tt.good {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := load(tt.text); (err == nil) != tt.good && name != "a variable" && name != "of a variable" {
			t.Errorf("%s: the loader says %v", name, err)
		}
	}
}

// The schema that is published is that of the types.
func TestSchemaFileIsCurrent(t *testing.T) {
	t.Parallel()
	have, err := os.ReadFile("../../docs/schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != string(Schema()) {
		t.Error("docs/schema.json is out of date: go run ./cmd/spliced schema >docs/schema.json")
	}
}
