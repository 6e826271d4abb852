package adminapi

import (
	"encoding"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// An object of JSON.
type object = map[string]any

// everywhere are the codes of every route.
var everywhere = []Code{BadParameter, BadBody, Unauthorized, ForbiddenHost, CrossOrigin, UnknownPath, MethodNotAllowed, BodyTooLarge, NotJSON}

// OpenAPI describes the API, in OpenAPI 3.1.
func OpenAPI() map[string]any {
	g := schemas{}
	failure := object{"application/json": object{"schema": g.of(reflect.TypeFor[Failure]())}}
	paths := make(object)
	for _, r := range routes() {
		operations, _ := paths[r.path].(object)
		if operations == nil {
			operations = make(object)
			paths[r.path] = operations
		}
		operations[strings.ToLower(r.method)] = g.operation(&r)
	}
	return object{
		"openapi": "3.1.0",
		"info": object{
			"title":       "spliced: the admin API",
			"version":     "1",
			"description": "What a running `spliced run` tells its operators, and does for them. See docs/run.md.",
			"license":     object{"name": "Apache-2.0", "identifier": "Apache-2.0"},
		},
		"servers":  []any{object{"url": "/"}},
		"security": []any{object{}, object{"token": []any{}}},
		"paths":    paths,
		"components": object{
			"schemas":         object(g),
			"responses":       object{"Failure": object{"description": "why it was not done", "content": failure}},
			"securitySchemes": object{"token": object{"type": "http", "scheme": "bearer", "description": "the content of admin.token_file, if the configuration has one"}},
		},
	}
}

func (g schemas) operation(r *route) object {
	op := object{"operationId": r.name, "summary": firstSentence(r.does), "description": r.does}
	var parameters []any
	for part := range strings.SplitSeq(r.path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			name = strings.TrimSuffix(name, "}")
			kind := object{"type": "string"}
			if name == "id" {
				kind = object{"type": "integer", "minimum": 0}
			}
			parameters = append(parameters, object{"name": name, "in": "path", "required": true, "schema": kind})
		}
	}
	for _, p := range r.query {
		kind := object{"type": p.kind}
		if p.enum != nil {
			kind["enum"] = p.enum
		}
		if n, err := strconv.Atoi(p.otherwise); err == nil {
			kind["default"] = n
		} else if p.otherwise != "" {
			kind["default"] = p.otherwise
		}
		parameters = append(parameters, object{"name": p.name, "in": "query", "description": p.does, "schema": kind})
	}
	if parameters != nil {
		op["parameters"] = parameters
	}
	if r.body != nil {
		op["requestBody"] = object{"required": true, "content": object{"application/json": object{"schema": g.of(reflect.TypeOf(r.body))}}}
	}
	responses := object{"204": object{"description": "done"}}
	if r.answer != nil {
		kind := "application/json"
		if r.stream {
			kind = "application/jsonl"
		}
		responses = object{"200": object{"description": "done", "content": object{kind: object{"schema": g.of(reflect.TypeOf(r.answer))}}}}
	}
	byStatus := make(map[int][]string)
	for _, code := range append(everywhere[:len(everywhere):len(everywhere)], r.codes...) {
		byStatus[statusOf[code]] = append(byStatus[statusOf[code]], string(code))
	}
	for status, codes := range byStatus {
		responses[strconv.Itoa(status)] = object{"$ref": "#/components/responses/Failure", "description": http.StatusText(status) + ": " + strings.Join(codes, ", ")}
	}
	op["responses"] = responses
	return op
}

func firstSentence(s string) string {
	first, _, _ := strings.Cut(s, ". ")
	return strings.TrimSuffix(first, ".")
}

// schemas are those of structures, by name.
type schemas object

// of returns the schema of a type, and keeps those of the structures in it.
func (g schemas) of(t reflect.Type) object {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case t == reflect.TypeFor[Code]():
		var all []any
		for _, code := range codes() {
			all = append(all, string(code))
		}
		return object{"type": "string", "enum": all}
	case t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return g.of(t.Elem())
	case reflect.Slice:
		return object{"type": "array", "items": g.of(t.Elem())}
	case reflect.Map:
		if t.Elem().Kind() == reflect.Interface {
			return object{"type": "object"}
		}
		return object{"type": "object", "additionalProperties": g.of(t.Elem())}
	case reflect.Struct:
		if _, ok := g[t.Name()]; !ok {
			g[t.Name()] = nil // it is being made
			s := object{"type": "object"}
			properties := make(object)
			required := g.fields(t, properties)
			s["properties"], s["required"] = properties, required
			g[t.Name()] = s
		}
		return object{"$ref": "#/components/schemas/" + t.Name()}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	case reflect.Float64:
		return object{"type": "number"}
	}
	panic("adminapi: no schema for a " + t.String())
}

// fields adds those of a structure, and returns which are always there.
func (g schemas) fields(t reflect.Type, properties object) (required []any) {
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			required = append(required, g.fields(f.Type, properties)...)
			continue
		}
		name, flags, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		s := g.of(f.Type)
		if doc := f.Tag.Get("doc"); doc != "" {
			s["description"] = doc
		}
		if enum := f.Tag.Get("enum"); enum != "" {
			var all []any
			for v := range strings.SplitSeq(enum, ",") {
				all = append(all, v)
			}
			s["enum"] = all
		}
		properties[name] = s
		if flags != "omitempty" {
			required = append(required, name)
		}
	}
	return required
}
