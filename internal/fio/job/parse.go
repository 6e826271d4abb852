package job

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A Set is what job files and job options on the command line add up to.
type Set struct {
	Jobs   []Options
	Global []Setting // all that stood in [global]
	order  []section
}

type section struct {
	name     string
	settings []placed
}

type placed struct {
	Setting
	file string
	line int
}

// A Parser collects sections. The zero value is not ready: use NewParser.
type Parser struct {
	table    []option
	sections []section
	only     []string // --section
	getenv   func(string) string
	open     func(string) (io.ReadCloser, error)
}

// NewParser returns an empty parser that takes ${NAME} from the environment.
func NewParser() *Parser {
	return &Parser{table: options(), getenv: os.Getenv, open: func(name string) (io.ReadCloser, error) { return os.Open(name) }}
}

// Only restricts job files to the sections named, beside [global].
func (p *Parser) Only(section string) { p.only = append(p.only, section) }

// Begin starts a section: "global" concerns all later ones.
func (p *Parser) Begin(name string) error {
	if len(p.sections) >= maxSections {
		return fmt.Errorf("more than %d sections", maxSections)
	}
	p.sections = append(p.sections, section{name: name})
	return nil
}

// Add adds an option to the current section; before the first one, to [global].
func (p *Parser) Add(s Setting) error {
	if err := p.check(placed{Setting: s}, ""); err != nil {
		return err
	}
	if len(p.sections) == 0 {
		if err := p.Begin("global"); err != nil {
			return err
		}
	}
	last := &p.sections[len(p.sections)-1]
	last.settings = append(last.settings, placed{Setting: s})
	return nil
}

// File reads a job file; "-" is standard input.
func (p *Parser) File(name string) error {
	if name == "-" {
		return p.Read("stdin", os.Stdin)
	}
	f, err := p.open(name)
	if err != nil {
		return fmt.Errorf("job file: %w", err)
	}
	defer f.Close()
	if s, ok := f.(interface{ Stat() (os.FileInfo, error) }); ok {
		if info, err := s.Stat(); err == nil && info.IsDir() {
			return fmt.Errorf("job file %s: is a directory", name)
		}
	}
	return p.Read(name, f)
}

// Read reads a job file from r; name is for messages and for finding what it
// includes.
func (p *Parser) Read(name string, r io.Reader) error {
	skip := false
	current := (*section)(nil)
	return p.lines(name, r, 0, func(file string, line int, text string, nested bool) error {
		fail := func(err error) error { return &Error{File: file, Line: line, Err: err} }
		if title, ok := strings.CutPrefix(text, "["); ok {
			if nested {
				return fail(errors.New("an included file has no sections"))
			}
			title, _, ok = strings.Cut(title, "]")
			if !ok {
				return fail(fmt.Errorf("section without ]: %q", abridged(text, mostShown)))
			}
			if title == "" {
				return fail(errors.New("section without a name"))
			}
			if skip = title != "global" && len(p.only) > 0 && !slices.Contains(p.only, title); skip {
				return nil
			}
			if err := p.Begin(title); err != nil {
				return fail(err)
			}
			current = &p.sections[len(p.sections)-1]
			return nil
		}
		if skip {
			return nil
		}
		if current == nil {
			return fail(fmt.Errorf("%q stands before the first [section]", abridged(text, mostShown)))
		}
		s := placed{Setting: setting(text), file: file, line: line}
		if err := p.check(s, current.name); err != nil {
			return err
		}
		current.settings = append(current.settings, s)
		return nil
	})
}

func setting(text string) Setting {
	name, value, has := strings.Cut(uncommented(text), "=")
	return Setting{Name: strings.TrimSpace(name), Value: strings.TrimSpace(value), Bare: !has}
}

// uncommented cuts what follows the first ; or #, which fio does anywhere in a
// line, whatever its manual says: a file that has one in its name is named on
// the command line.
func uncommented(text string) string {
	if i := strings.IndexAny(text, ";#"); i >= 0 {
		return text[:i]
	}
	return text
}

// lines calls fn for each line that says something, those of included files
// in their place.
func (p *Parser) lines(name string, r io.Reader, depth int, fn func(file string, line int, text string, nested bool) error) error {
	if depth > maxIncludes {
		return &Error{File: name, Err: fmt.Errorf("more than %d includes inside each other", maxIncludes)}
	}
	limited := &io.LimitedReader{R: r, N: maxFileBytes + 1}
	in := bufio.NewScanner(limited)
	in.Buffer(make([]byte, 4096), maxLineBytes)
	n := 0
	for in.Scan() {
		n++
		text := strings.TrimSpace(in.Text())
		if text == "" || text[0] == ';' || text[0] == '#' {
			continue
		}
		if strings.IndexByte(text, 0) >= 0 {
			return &Error{File: name, Line: n, Err: errors.New("not a text file")}
		}
		if rest, ok := strings.CutPrefix(text, "include"); ok && rest != "" && strings.IndexByte(" \t=", rest[0]) >= 0 {
			included := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(uncommented(rest)), "="))
			if !filepath.IsAbs(included) {
				included = filepath.Join(filepath.Dir(name), included)
			}
			f, err := p.open(included)
			if err != nil {
				return &Error{File: name, Line: n, Err: fmt.Errorf("include: %w", err)}
			}
			err = p.lines(included, f, depth+1, fn)
			f.Close()
			if err != nil {
				return err
			}
			continue
		}
		if err := fn(name, n, text, depth > 0); err != nil {
			return err
		}
	}
	if err := in.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			err = fmt.Errorf("line longer than %d bytes", maxLineBytes)
		}
		return &Error{File: name, Line: n + 1, Err: err}
	}
	if limited.N <= 0 {
		return &Error{File: name, Err: fmt.Errorf("longer than %d bytes", maxFileBytes)}
	}
	return nil
}

// check finds out early that an option does not exist.
func (p *Parser) check(s placed, job string) error {
	if lookup(p.table, s.Name) != nil {
		return nil
	}
	fail := &Error{File: s.file, Line: s.line, Job: job, Option: s.Name}
	if known(s.Name) {
		fail.Err = errors.New("fio has this option, spliced fio does not")
		return fail
	}
	fail.Err = fmt.Errorf("unknown option%s", p.near(s.Name))
	return fail
}

// near proposes the option that name may be a misspelling of.
func (p *Parser) near(name string) string {
	best, least := "", 3
	for _, o := range p.table {
		for n := range strings.FieldsSeq(o.names) {
			if d := distance(name, n); d < least {
				best, least = n, d
			}
		}
	}
	if best == "" {
		return ""
	}
	return ": did you mean " + best + "?"
}

// distance is Levenshtein's, on names of at most 64 bytes.
func distance(a, b string) int {
	a, b = a[:min(len(a), 64)], b[:min(len(b), 64)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// Set evaluates the sections in order: each [global] changes the defaults of
// the jobs after it.
func (p *Parser) Set() (*Set, error) {
	set := &Set{order: p.sections}
	base := defaults()
	for _, sec := range p.sections {
		o := &base
		job := ""
		if sec.name != "global" {
			copied := base
			o, job = &copied, sec.name
			o.Name, o.Section, o.Given = sec.name, sec.name, nil
		}
		if err := p.apply(o, sec.settings, job); err != nil {
			return nil, err
		}
		if job == "" {
			for _, s := range sec.settings {
				set.Global = append(set.Global, s.Setting)
			}
			continue
		}
		for _, s := range sec.settings {
			o.Given = append(o.Given, s.Setting)
		}
		if err := o.validate(); err != nil {
			return nil, &Error{File: fileOf(sec), Job: o.Name, Err: err}
		}
		set.Jobs = append(set.Jobs, *o)
	}
	return set, nil
}

func fileOf(sec section) string {
	if len(sec.settings) > 0 {
		return sec.settings[0].file
	}
	return ""
}

func (p *Parser) apply(o *Options, settings []placed, job string) error {
	// kb_base decides what the others' suffixes mean.
	for _, first := range []bool{true, false} {
		for i := range settings {
			s := &settings[i]
			if (s.Name == "kb_base") != first {
				continue
			}
			fail := func(err error) error {
				return &Error{File: s.file, Line: s.line, Job: job, Option: s.Setting.String(), Err: err}
			}
			if len(s.Value) > maxValueBytes {
				return fail(fmt.Errorf("longer than %d bytes", maxValueBytes))
			}
			v, err := expand(s.Value, p.getenv)
			if err != nil {
				return fail(err)
			}
			opt := lookup(p.table, s.Name)
			if opt == nil {
				return p.check(*s, job)
			}
			if err := opt.set(o, v, s.Bare); err != nil {
				return fail(err)
			}
			s.Value = v
		}
	}
	return nil
}

// Command returns the command lines that say the same as the jobs, one for
// all, as --showcmd prints them.
func (s *Set) Command() string {
	var b strings.Builder
	b.WriteString("fio")
	for _, sec := range s.order {
		if sec.name != "global" {
			b.WriteString(" --name=" + quote(sec.name))
		} else if len(sec.settings) > 0 {
			b.WriteString(" --name=global")
		}
		for _, o := range sec.settings {
			if o.Bare {
				b.WriteString(" --" + o.Name)
			} else {
				b.WriteString(" --" + o.Name + "=" + quote(o.Value))
			}
		}
	}
	return b.String()
}

// quote protects a word from the shell.
func quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:,+%=@", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// TakesBare says whether an option may stand without a value.
func (p *Parser) TakesBare(name string) bool {
	o := lookup(p.table, name)
	if o == nil {
		return false
	}
	scratch := defaults()
	return o.set(&scratch, "", true) == nil
}
