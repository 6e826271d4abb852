package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/spliced-io/spliced/internal/sys"
)

// A screen is a terminal that frames are drawn on.
type screen struct {
	out     *os.File
	keys    *os.File      // the same terminal; nil: no keys come
	before  *sys.Terminal // how it was set
	entered bool
}

// newScreen returns errNoTerminal if there is none.
func newScreen(std streams) (*screen, error) {
	out, ok := std.out.(*os.File)
	if !ok {
		return nil, errNoTerminal
	}
	s := &screen{out: out}
	if err := control(out, func(fd int) (err error) { s.before, err = sys.GetTerminal(fd); return err }); err != nil {
		return nil, errNoTerminal
	}
	// Opened anew, so that a read ends with close: what others share with us stays as
	// it is.
	if keys, err := os.OpenFile("/dev/tty", os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0); err == nil {
		s.keys = keys
	}
	return s, nil
}

// close ends the reading of keys.
func (s *screen) close() {
	if s.keys != nil {
		_ = s.keys.Close()
	}
}

// control calls f with the descriptor of a file, which stays as it is.
func control(file *os.File, f func(fd int) error) error {
	c, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := c.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}

const (
	// The other screen, without a cursor, and without going on in the next line at
	// the end of one.
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
)

func (s *screen) enter() error {
	s.entered = true
	if s.keys != nil {
		if err := control(s.keys, func(fd int) error { return sys.SetTerminal(fd, s.before.ByKey()) }); err != nil {
			return fmt.Errorf("the terminal: %w", err)
		}
	}
	return s.write(enterScreen)
}

// leave makes the terminal what it was.
func (s *screen) leave() {
	if !s.entered {
		return
	}
	s.entered = false
	_ = s.write(leaveScreen) // it may be gone
	if s.keys != nil {
		_ = control(s.keys, func(fd int) error { return sys.SetTerminal(fd, s.before) })
	}
}

func (s *screen) write(text string) error {
	if _, err := s.out.WriteString(text); err != nil {
		return fmt.Errorf("the terminal: %w", err)
	}
	return nil
}

// draw shows a frame in place of the last.
func (s *screen) draw(f *frame) error {
	var columns, rows int
	err := control(s.out, func(fd int) (err error) { columns, rows, err = sys.TerminalSize(fd); return err })
	if err != nil {
		return fmt.Errorf("the terminal: %w", err)
	}
	if columns == 0 || rows == 0 { // nobody has told it
		columns, rows = 80, 24
	}
	f.width, f.height = columns, rows
	var b strings.Builder
	b.WriteString("\x1b[H")
	for i, l := range f.lines() {
		if i > 0 {
			b.WriteString("\r\n")
		}
		if l.head {
			b.WriteString("\x1b[1m" + l.text + "\x1b[m")
		} else {
			b.WriteString(l.text)
		}
		b.WriteString("\x1b[K")
	}
	b.WriteString("\x1b[J")
	return s.write(b.String())
}
