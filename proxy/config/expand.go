package config

import (
	"fmt"
	"strings"
)

// expand puts environment variables in.
func (d *decoder) expand(text string) (string, error) {
	if !strings.Contains(text, "$") {
		return text, nil
	}
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, "$")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		switch {
		case strings.HasPrefix(rest, "$"):
			b.WriteByte('$')
			text = rest[1:]
			continue
		case !strings.HasPrefix(rest, "{"):
			return "", fmt.Errorf("%q: want ${NAME} for an environment variable, $$ for a dollar sign", text)
		}
		inner, after, closed := strings.Cut(rest[1:], "}")
		if !closed {
			return "", fmt.Errorf("%q: there is no } to the ${: want ${NAME}", text)
		}
		name, fallback, has := strings.Cut(inner, ":-")
		if !isVariable(name) {
			return "", fmt.Errorf("${%s}: %q is no name of an environment variable: want letters, digits and _", inner, name)
		}
		value, set := d.reader.LookupEnv(name)
		switch {
		case set && (value != "" || !has):
		case has:
			value = fallback
		default:
			return "", fmt.Errorf("environment variable %s is not set: want it set, or ${%s:-default}", name, name)
		}
		b.WriteString(value)
		text = after
	}
}

func isVariable(name string) bool {
	for i, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '_', i > 0 && '0' <= c && c <= '9':
		default:
			return false
		}
	}
	return name != ""
}
