package job

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

const maxPattern = 64 << 10

// pattern reads a sequence of "strings", 'files', decimal and hexadecimal
// numbers, and %o for the block's offset. A decimal number takes 4 bytes,
// little-endian; a hexadecimal one its digits as bytes in the order written.
func pattern(s string, format bool) (*Pattern, error) {
	p := &Pattern{}
	var err error
	for s != "" && err == nil {
		switch {
		case s[0] == '"':
			s, err = p.text(s)
		case s[0] == '\'':
			s, err = p.file(s)
		case strings.HasPrefix(s, "%o") && format:
			p.At = append(p.At, len(p.Bytes))
			p.Bytes = append(p.Bytes, make([]byte, 8)...)
			s = s[2:]
		case strings.HasPrefix(strings.ToLower(s), "0x"):
			s, err = p.hex(s)
		default:
			s, err = p.decimal(s)
		}
		if len(p.Bytes) > maxPattern {
			return nil, fmt.Errorf("pattern longer than %d bytes", maxPattern)
		}
	}
	if err == nil && len(p.Bytes) == 0 {
		err = errors.New("empty pattern")
	}
	return p, err
}

func (p *Pattern) text(s string) (string, error) {
	in, rest, ok := strings.Cut(s[1:], `"`)
	if !ok {
		return "", errors.New(`missing " in the pattern`)
	}
	p.Bytes = append(p.Bytes, in...)
	return rest, nil
}

func (p *Pattern) file(s string) (string, error) {
	name, rest, ok := strings.Cut(s[1:], "'")
	if !ok {
		return "", errors.New("missing ' in the pattern")
	}
	// A FIFO would hold us in open(2).
	if info, err := os.Stat(name); err != nil {
		return "", fmt.Errorf("pattern file: %w", err)
	} else if !info.Mode().IsRegular() {
		return "", fmt.Errorf("pattern file %s: not a regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("pattern file: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPattern))
	p.Bytes = append(p.Bytes, b...)
	return rest, err
}

func (p *Pattern) hex(s string) (string, error) {
	end := 2
	for end < len(s) {
		if _, ok := digit(s[end]); !ok {
			break
		}
		end++
	}
	digits := s[2:end]
	if digits == "" {
		return "", errors.New("0x without digits in the pattern")
	}
	if len(digits)%2 != 0 {
		digits = "0" + digits
	}
	for i := 0; i < len(digits); i += 2 {
		hi, _ := digit(digits[i])
		lo, _ := digit(digits[i+1])
		p.Bytes = append(p.Bytes, byte(hi<<4|lo))
	}
	return s[end:], nil
}

func (p *Pattern) decimal(s string) (string, error) {
	end := 0
	if s[0] == '-' {
		end++
	}
	for end < len(s) && s[end] >= '0' && s[end] <= '9' {
		// -120xdeadface is -12 and 0xdeadface.
		if s[end] == '0' && end+1 < len(s) && s[end+1]|0x20 == 'x' {
			break
		}
		end++
	}
	n, err := strconv.ParseInt(s[:end], 10, 64)
	if err != nil || n < -1<<31 || n > 1<<32-1 {
		return "", fmt.Errorf("%q is neither a number, a \"string\" nor a 'file'", s)
	}
	b := binary.LittleEndian.AppendUint32(nil, uint32(n))
	// As many bytes as the number needs, at least one.
	keep := 4
	for keep > 1 && n >= 0 && b[keep-1] == 0 {
		keep--
	}
	p.Bytes = append(p.Bytes, b[:keep]...)
	return s[end:], nil
}
