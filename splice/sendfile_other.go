//go:build !linux

package splice

func (s *sending) identify() error { return nil }

func (s *sending) cork() (undo func() error, err error) { return func() error { return nil }, nil }

func (s *sending) inKernel() (done bool, side string, err error) { return false, "", nil }

func (s *sending) read(p []byte) (int, error) { return s.file.ReadAt(p, s.off) }
