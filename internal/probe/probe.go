// Package probe measures what this kernel and this user may do: it tries, and
// says what came of it, instead of believing a version number. Nothing is
// remembered between calls, and nothing is left behind.
package probe

import (
	"context"
	"fmt"
	"runtime"
)

// Answer is what a probe found out.
type Answer uint8

// The answers. A probe that was kept from its measurement has none.
const (
	Inconclusive Answer = iota
	Yes
	No
)

var answerNames = [...]string{"inconclusive", "yes", "no"}

func (a Answer) String() string {
	if int(a) < len(answerNames) {
		return answerNames[a]
	}
	return fmt.Sprintf("answer(%d)", uint8(a))
}

// MarshalText makes an Answer readable in JSON.
func (a Answer) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (a *Answer) UnmarshalText(text []byte) error {
	for i, n := range answerNames {
		if n == string(text) {
			*a = Answer(i)
			return nil
		}
	}
	return fmt.Errorf("unknown answer %q: want yes, no or inconclusive", text)
}

// A Capability is one thing that may or may not be possible here.
type Capability struct {
	Name   string `json:"name"` // stable; see docs/relay.md
	Answer Answer `json:"answer"`
	Reason string `json:"reason"`          // what was seen
	Value  int64  `json:"value,omitempty"` // where the answer has a size: bytes, or a count
}

// A Report is all that was measured.
type Report struct {
	OS           string       `json:"os"`
	Arch         string       `json:"arch"`
	Kernel       string       `json:"kernel"`
	UID          int          `json:"uid"` // -1 where there is none
	Capabilities []Capability `json:"capabilities"`
}

// Find returns the capability of that name.
func (r *Report) Find(name string) (Capability, bool) {
	for _, c := range r.Capabilities {
		if c.Name == name {
			return c, true
		}
	}
	return Capability{}, false
}

// Run measures everything. It takes some 100 ms, opens up to 130 pipes for a
// moment and leaves out what is not yet measured when ctx ends.
func Run(ctx context.Context) Report {
	r := Report{OS: runtime.GOOS, Arch: runtime.GOARCH}
	run(ctx, &r)
	return r
}

func yes(name, reason string) Capability {
	return Capability{Name: name, Answer: Yes, Reason: reason}
}

func no(name, reason string) Capability {
	return Capability{Name: name, Answer: No, Reason: reason}
}

func unknown(name, reason string) Capability {
	return Capability{Name: name, Reason: reason}
}
