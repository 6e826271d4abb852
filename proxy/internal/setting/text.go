package setting

import (
	"encoding"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Values is a type of which only some values are allowed.
type Values interface{ Values() []string }

// IsScalar says whether a value of type t is written as one scalar.
func IsScalar(t reflect.Type) bool {
	if reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return true
	}
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Int:
		return true
	}
	return false
}

// SetText sets v, a scalar, from its text.
func SetText(v reflect.Value, text string) error {
	if p, ok := v.Addr().Interface().(*netip.Prefix); ok {
		// One machine is a network too.
		if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
			*p = netip.PrefixFrom(a, a.BitLen())
			return nil
		}
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		err := u.UnmarshalText([]byte(text))
		if what := foreign(v.Type()); err != nil && what != "" {
			err = fmt.Errorf("%q is no %s", text, what)
		}
		return err
	}
	switch v.Kind() {
	case reflect.String:
		if vs, ok := v.Interface().(Values); ok && !slices.Contains(vs.Values(), text) {
			return fmt.Errorf("%q is unknown: want %s", text, Or(vs.Values()))
		}
		v.SetString(text)
	case reflect.Bool:
		if text != "true" && text != "false" {
			return fmt.Errorf("%q is neither: want true or false", text)
		}
		v.SetBool(text == "true")
	case reflect.Int:
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return fmt.Errorf("%q is no number: want a whole one, 0 or more", text)
		}
		v.SetInt(int64(n))
	default:
		panic(fmt.Sprintf("setting: %s is no scalar", v.Type()))
	}
	return nil
}

// foreign says what a text of another package's type is to be, whose own errors say how
// it was read; "" for types of ours.
func foreign(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[netip.Prefix]():
		return "network: want one like 10.0.0.0/8 or fd00::/8, or an address"
	case reflect.TypeFor[netip.Addr]():
		return "address: want one like 10.0.0.1 or fd00::1"
	case reflect.TypeFor[slog.Level]():
		return "level: want debug, info, warn or error"
	}
	return ""
}

// Or lists words: a, b or c.
func Or(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
