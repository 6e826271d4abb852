package setting

import (
	"reflect"
	"slices"
	"strings"
)

// A Field is a key of a structure.
type Field struct {
	Key      string
	Required bool
	Short    bool   // a scalar stands for it
	Default  string // text; "" is none
	Index    []int  // for [reflect.Value.FieldByIndex]
	Type     reflect.Type
	Owner    reflect.Type // the structure that declares it
	Name     string       // there
}

// Fields lists the keys of a structure in the order of their declaration.
func Fields(t reflect.Type) []Field { return fields(t, nil) }

func fields(t reflect.Type, above []int) []Field {
	var list []Field
	for i := range t.NumField() {
		f := t.Field(i)
		tag, ok := f.Tag.Lookup("yaml")
		if !ok || tag == "-" {
			continue
		}
		key, flags, _ := strings.Cut(tag, ",")
		index := append(slices.Clone(above), i)
		words := strings.Split(flags, ",")
		if slices.Contains(words, "inline") {
			list = append(list, fields(f.Type, index)...)
			continue
		}
		list = append(list, Field{
			Key:      key,
			Required: slices.Contains(words, "required"),
			Short:    slices.Contains(words, "short"),
			Default:  f.Tag.Get("default"),
			Index:    index,
			Type:     f.Type,
			Owner:    t,
			Name:     f.Name,
		})
	}
	return list
}
