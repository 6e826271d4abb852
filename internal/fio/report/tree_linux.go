package report

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// An object keeps its members in order, and is written as fio writes JSON.
type object struct{ members []member }

type member struct {
	name  string
	value any
}

func (o *object) add(name string, value any) { o.members = append(o.members, member{name, value}) }

func (o *object) object(name string) *object {
	child := &object{}
	o.add(name, child)
	return child
}

// write writes the object as a document.
func (o *object) write(w io.Writer) error {
	var b strings.Builder
	value(&b, o, 0)
	b.WriteString("\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func value(b *strings.Builder, v any, depth int) {
	indent := strings.Repeat("  ", depth)
	switch v := v.(type) {
	case *object:
		b.WriteString("{\n")
		for i, m := range v.members {
			b.WriteString(indent + "  " + quoted(m.name) + " : ")
			value(b, m.value, depth+1)
			comma(b, i, len(v.members))
		}
		b.WriteString(indent + "}")
	case []*object:
		b.WriteString("[\n")
		for i, e := range v {
			b.WriteString(indent + "  ")
			value(b, e, depth+1)
			comma(b, i, len(v))
		}
		b.WriteString(indent + "]")
	case []uint64:
		b.WriteString("[\n")
		for i, n := range v {
			fmt.Fprintf(b, "%s  %d", indent, n)
			comma(b, i, len(v))
		}
		b.WriteString(indent + "]")
	case float64:
		fmt.Fprintf(b, "%f", v)
	case string:
		b.WriteString(quoted(v))
	default:
		fmt.Fprint(b, v)
	}
}

func comma(b *strings.Builder, i, n int) {
	if i+1 < n {
		b.WriteString(",")
	}
	b.WriteString("\n")
}

func quoted(s string) string {
	q, err := json.Marshal(s)
	if err != nil {
		return `""`
	}
	return string(q)
}
