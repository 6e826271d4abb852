package job

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// expression evaluates the arithmetic in parentheses at the beginning of s:
// + - * / % ^, size and time suffixes (times in microseconds), nested
// parentheses.
func expression(s string) (float64, string, error) {
	p := parser{rest: s}
	v, err := p.primary(0)
	if err != nil {
		return 0, "", fmt.Errorf("%q: %w", s, err)
	}
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, "", fmt.Errorf("%q: not a finite number", s)
	}
	return v, p.rest, nil
}

type parser struct{ rest string }

func (p *parser) peek() byte {
	p.rest = strings.TrimLeft(p.rest, " \t")
	if p.rest == "" {
		return 0
	}
	return p.rest[0]
}

func (p *parser) sum(depth int) (float64, error) {
	v, err := p.product(depth)
	for err == nil {
		op := p.peek()
		if op != '+' && op != '-' {
			break
		}
		p.rest = p.rest[1:]
		var w float64
		if w, err = p.product(depth); op == '+' {
			v += w
		} else {
			v -= w
		}
	}
	return v, err
}

func (p *parser) product(depth int) (float64, error) {
	v, err := p.power(depth)
	for err == nil {
		op := p.peek()
		if op != '*' && op != '/' && op != '%' {
			break
		}
		p.rest = p.rest[1:]
		var w float64
		if w, err = p.power(depth); err != nil {
			break
		}
		switch {
		case op == '*':
			v *= w
		case w == 0:
			return 0, errors.New("division by zero")
		case op == '/':
			v /= w
		default:
			v = math.Mod(v, w)
		}
	}
	return v, err
}

func (p *parser) power(depth int) (float64, error) {
	if depth > maxExprDepth {
		return 0, errors.New("nested too deeply")
	}
	v, err := p.unary(depth)
	if err == nil && p.peek() == '^' {
		p.rest = p.rest[1:]
		var w float64
		w, err = p.power(depth + 1)
		v = math.Pow(v, w)
	}
	return v, err
}

func (p *parser) unary(depth int) (float64, error) {
	if depth > maxExprDepth {
		return 0, errors.New("nested too deeply")
	}
	if p.peek() == '-' {
		p.rest = p.rest[1:]
		v, err := p.unary(depth + 1)
		return -v, err
	}
	return p.primary(depth)
}

func (p *parser) primary(depth int) (float64, error) {
	if depth > maxExprDepth {
		return 0, errors.New("nested too deeply")
	}
	if p.peek() == '(' {
		p.rest = p.rest[1:]
		v, err := p.sum(depth + 1)
		if err != nil {
			return 0, err
		}
		if p.peek() != ')' {
			return 0, errors.New("missing )")
		}
		p.rest = p.rest[1:]
		return v, nil
	}
	return p.literal()
}

func (p *parser) literal() (float64, error) {
	p.peek()
	end := 0
	if strings.HasPrefix(p.rest, "0x") {
		n, rest, err := leading(p.rest)
		p.rest = rest
		return float64(n.u), err
	}
	for end < len(p.rest) && (p.rest[end] >= '0' && p.rest[end] <= '9' || p.rest[end] == '.') {
		end++
	}
	if end == 0 {
		return 0, fmt.Errorf("no number at %q", p.rest)
	}
	v, err := strconv.ParseFloat(p.rest[:end], 64)
	if err != nil {
		return 0, err
	}
	p.rest = p.rest[end:]
	end = 0
	for end < len(p.rest) && (p.rest[end]|0x20 >= 'a' && p.rest[end]|0x20 <= 'z') {
		end++
	}
	unit := strings.ToLower(p.rest[:end])
	p.rest = p.rest[end:]
	mult, ok := exprUnit(unit)
	if !ok {
		return 0, fmt.Errorf("unknown suffix %q", unit)
	}
	return v * mult, nil
}

// exprUnit: inside parentheses a single m is mega, as in fio's lexer; times
// are in microseconds.
func exprUnit(s string) (float64, bool) {
	switch s {
	case "":
		return 1, true
	case "us", "usec":
		return 1, true
	case "ms", "msec":
		return 1e3, true
	case "s", "sec":
		return 1e6, true
	case "min":
		return 60e6, true
	case "h":
		return 3600e6, true
	case "d":
		return 86400e6, true
	}
	mult, err := sizeSuffix(s, 1024)
	return float64(mult), err == nil
}
