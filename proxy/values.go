package proxy

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spliced-io/spliced/proxy/internal/detect"
)

// Never is the [Timeout] that does not come.
const Never Timeout = -1

// A Timeout is a duration. 0 stands for a default, [Never] for none at all; as
// text, both "0" and "never" are Never.
type Timeout time.Duration

// MarshalText makes a Timeout readable.
func (t Timeout) MarshalText() ([]byte, error) {
	if t < 0 {
		return []byte("never"), nil
	}
	return []byte(time.Duration(t).String()), nil
}

// UnmarshalText reads 250ms, 30s, 1h30m, 0 or never.
func (t *Timeout) UnmarshalText(text []byte) error {
	if s := string(text); s == "never" || s == "0" {
		*t = Never
		return nil
	}
	d, err := time.ParseDuration(string(text))
	if err != nil || d < 0 {
		return fmt.Errorf("%q is no duration: want one like 250ms, 30s or 1h30m, or never", text)
	}
	if d > 0 {
		err = bounded(text, d)
	}
	if *t = Timeout(d); d == 0 {
		*t = Never
	}
	return err
}

// within returns the limit as package splice has it, 0 for none.
func (t Timeout) within() time.Duration { return max(0, time.Duration(t)) }

// The bounds of what is written. No sum or double of the longest overflows; less than the
// shortest was meant to be another unit: nothing is done in it, or over and over again.
const (
	longest  = 100 * 365 * 24 * time.Hour
	shortest = time.Millisecond
)

func bounded(text []byte, d time.Duration) error {
	if d < shortest || d > longest {
		return fmt.Errorf("%q is out of bounds: want %v to %gh", text, shortest, longest.Hours())
	}
	return nil
}

// A Duration is one that must be positive. 0 stands for a default.
type Duration time.Duration

// MarshalText makes a Duration readable.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads 250ms, 30s or 1h30m.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v <= 0 {
		return fmt.Errorf("%q is no time to wait: want one like 250ms, 30s or 1h30m", text)
	}
	*d = Duration(v)
	return bounded(text, v)
}

// A Size is a number of bytes.
type Size int64

// units are powers of 1024 and, with a B alone behind, of 1000.
var units = []struct {
	suffix string
	factor int64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"kB", 1e3},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
	{"B", 1},
}

// MarshalText is the number.
func (s Size) MarshalText() ([]byte, error) { return strconv.AppendInt(nil, int64(s), 10), nil }

// UnmarshalText reads 1048576, 1MiB or 1MB.
func (s *Size) UnmarshalText(text []byte) error {
	digits, factor := string(text), int64(1)
	for _, u := range units {
		if d, ok := strings.CutSuffix(digits, u.suffix); ok {
			digits, factor = d, u.factor
			break
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || int64(n) > math.MaxInt64/factor {
		return fmt.Errorf("%q is no number of bytes: want one like 65536, 64KiB or 10MB", text)
	}
	*s = Size(int64(n) * factor)
	return nil
}

// A Percent is a part of a whole, from 0 to 100. 0 stands for a default; as
// text, 0% is none at all.
type Percent float64

// noPart is what 0% is: a zero would be the default.
const noPart Percent = -1

// MarshalText writes 50%.
func (p Percent) MarshalText() ([]byte, error) {
	return []byte(strconv.FormatFloat(max(0, float64(p)), 'g', -1, 64) + "%"), nil
}

// UnmarshalText reads 50% or 12.5%.
func (p *Percent) UnmarshalText(text []byte) error {
	digits, ok := strings.CutSuffix(string(text), "%")
	v, err := strconv.ParseFloat(digits, 64)
	if !ok || err != nil || !(v >= 0 && v <= 100) {
		return fmt.Errorf("%q is no part of a whole: want one like 50%%", text)
	}
	if *p = Percent(v); v == 0 {
		*p = noPart
	}
	return nil
}

// of returns that part of v.
func (p Percent) of(v float64) float64 { return max(0, float64(p)) / 100 * v }

// Balance chooses among servers.
type Balance string

// The ways to choose.
const (
	RoundRobin       Balance = "round-robin"
	LeastConnections Balance = "least-connections"
	RandomTwo        Balance = "random-two"
	First            Balance = "first"
	Maglev           Balance = "maglev"
)

// Values lists the ways.
func (Balance) Values() []string {
	return []string{string(RoundRobin), string(LeastConnections), string(RandomTwo), string(First), string(Maglev)}
}

// HashKey is what [Maglev] hashes.
type HashKey string

// What can be hashed.
const (
	BySource HashKey = "source"
	BySNI    HashKey = "sni"
)

// Values lists what can be hashed.
func (HashKey) Values() []string { return []string{string(BySource), string(BySNI)} }

// SessionRule is what becomes of a server's connections when it is no longer to
// be used.
type SessionRule string

// The rules.
const (
	KeepSessions  SessionRule = "keep"
	DrainSessions SessionRule = "drain"
	CloseSessions SessionRule = "close"
)

// Values lists the rules.
func (SessionRule) Values() []string {
	return []string{string(KeepSessions), string(DrainSessions), string(CloseSessions)}
}

// Protocol is what a client's first bytes are.
type Protocol string

// ProtocolTLS is a TLS handshake, the only one with server names.
const ProtocolTLS Protocol = "tls"

// Values lists the protocols that are told apart.
func (Protocol) Values() []string { return detect.Names() }
