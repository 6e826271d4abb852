package sys

import "golang.org/x/sys/unix"

// Terminal is how a terminal takes and shows characters: termios(3).
type Terminal struct{ t unix.Termios }

// GetTerminal returns how the terminal fd is set. ENOTTY: it is none.
func GetTerminal(fd int) (*Terminal, error) {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	return &Terminal{*t}, nil
}

// SetTerminal sets it, once what was written is shown.
func SetTerminal(fd int, t *Terminal) error { return unix.IoctlSetTermios(fd, unix.TCSETSW, &t.t) }

// ByKey returns t but for this: each key is read at once, without being shown. Keys
// that make signals still do.
func (t *Terminal) ByKey() *Terminal {
	k := *t
	k.t.Lflag &^= unix.ICANON | unix.ECHO
	k.t.Cc[unix.VMIN], k.t.Cc[unix.VTIME] = 1, 0
	return &k
}

// TerminalSize returns the size of the terminal fd in characters.
func TerminalSize(fd int) (columns, rows int, err error) {
	w, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0, err
	}
	return int(w.Col), int(w.Row), nil
}
