package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/proxy/internal/setting"
)

// A decoder puts the tree of one file into the whole.
type decoder struct {
	*loader
	file string
}

func (d *decoder) at(n ast.Node) place {
	if s, ok := n.(*ast.SequenceNode); ok && len(s.Values) > 0 && !s.IsFlowStyle {
		return d.at(s.Values[0])
	}
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 && !m.IsFlowStyle {
		return d.at(m.Values[0].Key)
	}
	if m, ok := n.(*ast.MappingValueNode); ok {
		return d.at(m.Key)
	}
	return placeOf(d.file, n.GetToken())
}

func (d *decoder) wrongAt(n ast.Node, format string, args ...any) {
	d.wrong(d.at(n), fmt.Sprintf(format, args...))
}

// note remembers where a path stands.
func (d *decoder) note(path []string, n ast.Node) {
	d.places[strings.Join(path, "\x00")] = d.at(n)
}

// value decodes n into v.
func (d *decoder) value(n ast.Node, v reflect.Value, path []string, depth int) {
	if depth > maxDepth {
		d.wrongAt(n, "nested too deeply: want at most %d levels", maxDepth)
		return
	}
	d.note(path, n)
	switch n := n.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		d.wrongAt(n, "anchors and aliases are not supported: want it written out, or a file to include")
		return
	case *ast.TagNode:
		d.wrongAt(n, "tags are not supported: want the value alone")
		return
	}
	t := v.Type()
	switch {
	case t.Kind() == reflect.Pointer:
		v.Set(reflect.New(t.Elem()))
		if _, empty := n.(*ast.NullNode); empty {
			return // health: alone has its defaults
		}
		d.value(n, v.Elem(), path, depth)
	case setting.IsScalar(t):
		d.scalar(n, v)
	case t.Kind() == reflect.Struct:
		d.structure(n, v, path, depth)
	case t.Kind() == reflect.Map:
		d.mapping(n, v, path, depth)
	case t.Kind() == reflect.Slice:
		d.list(n, v, path, depth)
	default:
		panic("config: no way to read a " + t.String())
	}
}

// scalar decodes one.
func (d *decoder) scalar(n ast.Node, v reflect.Value) {
	text, ok := scalarText(n)
	if !ok {
		d.wrongAt(n, "want one value, not %s", kindOf(n))
		return
	}
	text, err := d.expand(text)
	if err == nil {
		err = setting.SetText(v, text)
	}
	if err != nil {
		d.wrongAt(n, "%s", err)
	}
}

// scalarText returns what is written: 0x10, 1e3 and yes stay what they are until
// the type is known.
func scalarText(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func kindOf(n ast.Node) string {
	switch n.(type) {
	case *ast.SequenceNode:
		return "a list"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "keys"
	case *ast.NullNode:
		return "nothing"
	}
	return "a value"
}

// pairs returns the keys and values of a mapping.
func pairs(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	case *ast.NullNode:
		return nil, true
	}
	return nil, false
}

func (d *decoder) structure(n ast.Node, v reflect.Value, path []string, depth int) {
	fields := setting.Fields(v.Type())
	values, ok := pairs(n)
	if !ok {
		for _, f := range fields {
			_, scalar := scalarText(n)
			_, list := n.(*ast.SequenceNode)
			if f.Short && (scalar || list && f.Type.Kind() == reflect.Slice) {
				d.value(n, v.FieldByIndex(f.Index), append(slices.Clone(path), f.Key), depth+1)
				return
			}
		}
		d.wrongAt(n, "want keys (%s), not %s", strings.Join(keysOf(fields), ", "), kindOf(n))
		return
	}
	seen, clean := make(map[string]bool), len(d.problems)
	for _, kv := range values {
		key, ok := d.key(kv)
		if !ok {
			continue
		}
		i := slices.IndexFunc(fields, func(f setting.Field) bool { return f.Key == key })
		if i < 0 {
			d.wrongAt(kv.Key, "%s", unknown(key, keysOf(fields)))
			continue
		}
		seen[key] = true
		f := fields[i]
		sub := append(slices.Clone(path), key)
		fv := v.FieldByIndex(f.Index)
		// Maps of the top level are merged from several files, and nothing else.
		if said, twice := d.places[strings.Join(sub, "\x00")]; twice && f.Type.Kind() != reflect.Map && key != "include" {
			d.wrongAt(kv.Key, "%q was said before, at %s:%d: want it once", key, said.file, said.line)
			continue
		}
		before := len(d.problems)
		d.value(kv.Value, fv, sub, depth+1)
		d.note(sub, kv.Value)
		if counts(fv.Type()) && fv.IsZero() && f.Default != "" && len(d.problems) == before {
			// Who writes weight: 0 wants no connections there, and would get the default's.
			d.wrongAt(kv.Value, "%s 0: want 1 or more, or leave it out for %s", key, f.Default)
		}
	}
	for _, f := range fields {
		switch fv := v.FieldByIndex(f.Index); {
		case !f.Required:
		case !seen[f.Key]:
			d.wrongAt(n, "%q is missing: want it here", f.Key)
		case fv.Kind() == reflect.String && fv.IsZero() && len(d.problems) == clean:
			d.wrongAt(n, "%q is empty: want a value", f.Key)
		}
	}
}

// counts says whether a value is a number, of which 0 is no other way to say none.
func counts(t reflect.Type) bool {
	return t == reflect.TypeFor[int]() || t == reflect.TypeFor[proxy.Size]()
}

func (d *decoder) key(kv *ast.MappingValueNode) (string, bool) {
	if _, merge := kv.Key.(*ast.MergeKeyNode); merge {
		d.wrongAt(kv.Key, "merging (<<) is not supported: want it written out, or a file to include")
		return "", false
	}
	key, ok := scalarText(kv.Key)
	if !ok || key == "" {
		d.wrongAt(kv.Key, "want a word as a key")
		return "", false
	}
	return key, true
}

func keysOf(fields []setting.Field) []string {
	keys := make([]string, len(fields))
	for i, f := range fields {
		keys[i] = f.Key
	}
	return keys
}

func (d *decoder) mapping(n ast.Node, v reflect.Value, path []string, depth int) {
	values, ok := pairs(n)
	if !ok {
		d.wrongAt(n, "want names, each with keys of its own, not %s", kindOf(n))
		return
	}
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	for _, kv := range values {
		key, ok := d.key(kv)
		if !ok {
			continue
		}
		if err := checkName(key); err != nil {
			d.wrongAt(kv.Key, "%s", err)
			continue
		}
		sub := append(slices.Clone(path), key)
		if said, twice := d.places[strings.Join(sub, "\x00")]; twice {
			d.wrongAt(kv.Key, "%q was said before, at %s:%d: want it once", key, said.file, said.line)
			continue
		}
		e := reflect.New(v.Type().Elem()).Elem()
		d.value(kv.Value, e, sub, depth+1)
		d.note(sub, kv.Key)
		v.SetMapIndex(reflect.ValueOf(key), e)
	}
}

// maxName bounds names: they become labels, and parts of paths.
const maxName = 100

func checkName(name string) error {
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		default:
			return fmt.Errorf("name %q: want letters, digits, - _ and . only", name)
		}
	}
	if len(name) > maxName {
		return fmt.Errorf("name %.20q...: want at most %d characters", name, maxName)
	}
	return nil
}

// list decodes a sequence, or one element alone.
func (d *decoder) list(n ast.Node, v reflect.Value, path []string, depth int) {
	elements := []ast.Node{n}
	switch s := n.(type) {
	case *ast.SequenceNode:
		elements = s.Values
	case *ast.NullNode:
		elements = nil
	}
	if len(elements) == 0 {
		d.wrongAt(n, "the list is empty: want an element, or leave the key out")
	}
	for i, e := range elements {
		e = whole(e)
		ev := reflect.New(v.Type().Elem()).Elem()
		d.value(e, ev, append(slices.Clone(path), strconv.Itoa(i)), depth+1)
		v.Set(reflect.Append(v, ev))
	}
}

// whole is the element of a list as YAML has it: the parser takes 127.0.0.1:80 for a key and
// its value in a list within braces, where a colon ends a key only before a blank, or after
// quotes (YAML 1.2, 7.3.3 and 7.4.2).
func whole(e ast.Node) ast.Node {
	m, ok := e.(*ast.MappingNode)
	if !ok || m.IsFlowStyle || len(m.Values) != 1 {
		return e
	}
	key, colon, value := m.Values[0].Key.GetToken(), m.Values[0].Start, m.Values[0].Value.GetToken()
	if !plain(m.Values[0].Key) || !plain(m.Values[0].Value) || colon.Position.Line != value.Position.Line || colon.Position.Column+1 != value.Position.Column {
		return e
	}
	text := key.Value + ":" + value.Value
	return ast.String(token.New(text, text, key.Position))
}

// plain says whether a node is one value, without quotes.
func plain(n ast.Node) bool {
	_, scalar := scalarText(n)
	switch n.GetToken().Type {
	case token.SingleQuoteType, token.DoubleQuoteType, token.LiteralType, token.FoldedType:
		return false
	}
	return scalar
}
