package job

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// expand replaces ${NAME} by the environment's value ("" if unset) and the
// keywords $pagesize, $mb_memory and $ncpus, after which a sum without
// parentheses, like 8*$mb_memory, is computed.
func expand(s string, getenv func(string) string) (string, error) {
	if !strings.Contains(s, "$") {
		return s, nil
	}
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, "${")
		b.WriteString(before)
		if !found {
			break
		}
		name, rest, ok := strings.Cut(after, "}")
		if !ok {
			return "", fmt.Errorf("missing } in %q", s)
		}
		b.WriteString(getenv(name))
		s = rest
		if b.Len() > maxValueBytes {
			return "", fmt.Errorf("longer than %d bytes after expansion", maxValueBytes)
		}
	}
	return keywords(b.String())
}

func keywords(s string) (string, error) {
	replaced := s
	for _, word := range []string{"$pagesize", "$mb_memory", "$ncpus"} {
		if strings.Contains(replaced, word) {
			replaced = strings.ReplaceAll(replaced, word, keyword(word))
		}
	}
	if replaced == s || strings.HasPrefix(replaced, "(") || strings.Trim(replaced, "0123456789") == "" {
		return replaced, nil
	}
	// Text that only happens to contain a keyword stays text.
	v, rest, err := expression("(" + replaced + ")")
	if err != nil || rest != "" {
		return replaced, nil
	}
	return strconv.FormatInt(int64(v), 10), nil
}

func keyword(word string) string {
	switch word {
	case "$pagesize":
		return strconv.Itoa(os.Getpagesize())
	case "$ncpus":
		return strconv.Itoa(runtime.NumCPU())
	default:
		return strconv.FormatInt(memory()>>20, 10)
	}
}

// memory is MemTotal of /proc/meminfo in bytes, 0 where there is none.
func memory() int64 {
	b, _ := os.ReadFile("/proc/meminfo")
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "MemTotal:" {
			kb, _ := strconv.ParseInt(f[1], 10, 64)
			return kb << 10
		}
	}
	return 0
}
