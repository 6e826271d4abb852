package config

import (
	"encoding/json"
	"log/slog"
	"math"
	"reflect"
	"strconv"

	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/proxy/internal/setting"
	"github.com/spliced-io/spliced/splice"
)

//go:generate go run ./gen

// schema is as much of JSON Schema (draft 2020-12) as is used here.
type schema struct {
	Schema      string            `json:"$schema,omitempty"`
	Title       string            `json:"title,omitempty"`
	Ref         string            `json:"$ref,omitempty"`
	Description string            `json:"description,omitempty"`
	Default     string            `json:"default,omitempty"`
	Type        any               `json:"type,omitempty"`
	Enum        []any             `json:"enum,omitempty"`
	Pattern     string            `json:"pattern,omitempty"`
	Minimum     *int              `json:"minimum,omitempty"`
	Maximum     *int              `json:"maximum,omitempty"`
	AnyOf       []schema          `json:"anyOf,omitempty"`
	Items       *schema           `json:"items,omitempty"`
	MinItems    int               `json:"minItems,omitempty"`
	Properties  map[string]schema `json:"properties,omitempty"`
	Required    []string          `json:"required,omitempty"`
	Additional  any               `json:"additionalProperties,omitempty"` // false, or a schema
	Defs        map[string]schema `json:"$defs,omitempty"`
}

// Schema returns the JSON Schema of [File].
func Schema() []byte {
	g := generator{docs: fieldDocs(), defs: map[string]schema{
		"variable": {Type: "string", Pattern: `\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}`, Description: "environment variables"},
	}}
	root := g.structure(reflect.TypeFor[File]())
	root.Schema = "https://json-schema.org/draft/2020-12/schema"
	root.Title = "configuration of spliced run"
	root.Defs = g.defs
	b, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic(err) // strings, maps and slices of them
	}
	return append(b, '\n')
}

type generator struct {
	docs map[string]string
	defs map[string]schema
}

func (g *generator) of(t reflect.Type) schema {
	switch {
	case t.Kind() == reflect.Pointer:
		return schema{AnyOf: []schema{g.of(t.Elem()), {Type: "null"}}}
	case setting.IsScalar(t):
		return scalarSchema(t, 0)
	case t.Kind() == reflect.Struct:
		name := t.Name()
		if _, ok := g.defs[name]; !ok {
			g.defs[name] = schema{} // it is being made
			g.defs[name] = g.structure(t)
		}
		ref := schema{Ref: "#/$defs/" + name}
		for _, f := range setting.Fields(t) {
			if f.Short {
				return schema{AnyOf: []schema{g.of(f.Type), ref}}
			}
		}
		return ref
	case t.Kind() == reflect.Map:
		return schema{Type: "object", Additional: g.of(t.Elem())}
	case t.Kind() == reflect.Slice:
		e := g.of(t.Elem())
		return schema{AnyOf: []schema{{Type: "array", Items: &e, MinItems: 1}, e}}
	}
	panic("config: no schema for a " + t.String())
}

// durationPattern is what time.ParseDuration reads, without a sign.
const durationPattern = `^(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h))+$`

// written is a value that is written so, or comes from the environment.
func written(pattern string) schema {
	return schema{AnyOf: []schema{{Type: "string", Pattern: pattern}, {Ref: "#/$defs/variable"}}}
}

// number is a whole one.
func number(least int) schema { return schema{Type: "integer", Minimum: &least} }

// scalarSchema is that of one value; a number is at least so much.
func scalarSchema(t reflect.Type, least int) schema {
	variable := schema{Ref: "#/$defs/variable"}
	one := func(values ...string) schema { return schema{AnyOf: []schema{{Enum: spellings(values)}, variable}} }
	switch t {
	case reflect.TypeFor[splice.Engine]():
		return one("auto", "copy", "splice", "sockmap", "wire")
	case reflect.TypeFor[slog.Level]():
		return one("debug", "info", "warn", "error")
	case reflect.TypeFor[proxy.Duration]():
		return written(durationPattern)
	case reflect.TypeFor[proxy.Timeout]():
		return schema{AnyOf: append([]schema{{Enum: spellings([]string{"never", "0"})}}, written(durationPattern).AnyOf...)}
	case reflect.TypeFor[proxy.Percent]():
		return written(`^[0-9]+(\.[0-9]*)?%$`)
	case reflect.TypeFor[proxy.Size]():
		return schema{AnyOf: append([]schema{number(least)}, written(`^[0-9]+([KMGT]iB|[kKMGT]B|B)?$`).AnyOf...)}
	}
	if vs, ok := reflect.Zero(t).Interface().(setting.Values); ok {
		return one(vs.Values()...)
	}
	switch t.Kind() {
	case reflect.Bool:
		return schema{AnyOf: []schema{{Type: "boolean"}, variable}}
	case reflect.Int:
		n := number(least)
		n.Maximum = new(int)
		*n.Maximum = math.MaxInt32
		return schema{AnyOf: []schema{n, variable}}
	}
	return schema{Type: []string{"string", "integer", "number"}}
}

// spellings adds numbers to values that YAML takes for some: 1.2 needs no quotes.
func spellings(values []string) (enum []any) {
	for _, v := range values {
		enum = append(enum, v)
		if n, err := strconv.ParseFloat(v, 64); err == nil {
			enum = append(enum, n)
		}
	}
	return enum
}

func (g *generator) structure(t reflect.Type) schema {
	s := schema{Type: "object", Properties: make(map[string]schema), Additional: false}
	for _, f := range setting.Fields(t) {
		p := g.of(f.Type)
		if counts(f.Type) && f.Default != "" { // see [decoder.structure]
			p = scalarSchema(f.Type, 1)
		}
		p.Description, p.Default = g.docs[f.Owner.Name()+"."+f.Name], f.Default
		s.Properties[f.Key] = p
		if f.Required {
			s.Required = append(s.Required, f.Key)
		}
	}
	return s
}
