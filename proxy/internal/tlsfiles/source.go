package tlsfiles

import (
	"sync"
	"sync/atomic"
)

// A source keeps what was made of some files.
type source[T any] struct {
	files []string
	make  func() (*T, error)

	current atomic.Pointer[T]
	mu      sync.Mutex
	stamp   stamp // of the last attempt, that failed or not
}

func (s *source[T]) open() error {
	s.stamp = stamped(s.files)
	v, err := s.make()
	if err == nil {
		s.current.Store(v)
	}
	return err
}

// Refresh reads the files again if they have changed since the last time, and
// says whether they had. After an error what was read before stays in force.
func (s *source[T]) Refresh() (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := stamped(s.files)
	if now.same(s.stamp) {
		return false, nil
	}
	s.stamp = now // before reading: a change meanwhile is found next time
	v, err := s.make()
	if err != nil {
		return true, err
	}
	s.current.Store(v)
	return true, nil
}
