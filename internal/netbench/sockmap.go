package netbench

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// The workloads of [RunSockmap]: how the far end takes what has arrived.
const (
	WorkloadSockmapRead   = "sockmap-read"   // by recv(2)
	WorkloadSockmapSplice = "sockmap-splice" // by splice(2) into a pipe, which is then read
)

const sockmapWorkloads = "sockmap-" // what their names begin with

// SockmapConsumers returns the ways to consume, which are the workloads'
// names without what they begin with.
func SockmapConsumers() []string { return []string{"read", "splice"} }

// The sockets of a [SockmapMode]: two connections over loopback, C1 with P1 and
// P2 with C2. What is sent arrives at C2.
const (
	socketC1 = iota
	socketP1
	socketC2
	socketP2
)

// The programs of internal/bpf/sockbench.c, by their names there.
const (
	noProgram   = ""
	skbPass     = "skb_pass"
	skbRedirect = "skb_redirect"
	skbParse    = "skb_parse"
	msgPass     = "msg_pass"
	msgRedirect = "msg_redirect"
)

// A sockmapMode is a way from the sender to C2, as in the kernel's own
// benchmark (tools/testing/selftests/bpf/benchs/bench_sockmap.c): rx modes have
// a program see what a socket receives (sk_skb), tx modes what it sends
// (sk_msg).
type sockmapMode struct {
	name    string
	way     string // for people
	program string
	ingress bool   // redirected into the drain's receive queue, else into its send queue
	sender  int    // socket
	members [2]int // in the map: whose bytes the program sees, and the drain
	// room is the socket whose send buffer has to take what is sent.
	room int
	// forwarded: user space reads from P1 and writes to P2.
	forwarded bool
}

func sockmapModes() []sockmapMode {
	return []sockmapMode{
		{name: "rx-normal", way: "C1 to P1, read and sent to P2 by user space, C2", sender: socketC1, room: socketC1, forwarded: true},
		{name: "rx-pass", way: "P2 to C2, where a verdict program passes it on", program: skbPass, sender: socketP2, room: socketP2, members: [2]int{socketC2, -1}},
		{name: "rx-verdict-egress", way: "C1 to P1, redirected to P2's send queue, C2", program: skbRedirect, sender: socketC1, room: socketC1, members: [2]int{socketP1, socketP2}},
		{name: "rx-verdict-ingress", way: "C1 to P1, redirected to C2's receive queue", program: skbRedirect, ingress: true, sender: socketC1, room: socketC1, members: [2]int{socketP1, socketC2}},
		{name: "tx-normal", way: "P2 to C2", sender: socketP2, room: socketP2},
		{name: "tx-pass", way: "P2, where a message program passes it on, to C2", program: msgPass, sender: socketP2, room: socketP2, members: [2]int{socketP2, socketC2}},
		{name: "tx-verdict-ingress", way: "P2, redirected to C2's receive queue", program: msgRedirect, ingress: true, sender: socketP2, room: socketP2, members: [2]int{socketP2, socketC2}},
		{name: "tx-verdict-egress", way: "P1, redirected to P2's send queue, C2", program: msgRedirect, sender: socketP1, room: socketP2, members: [2]int{socketP1, socketP2}},
	}
}

// received says whether the program sees what is received: only then can a
// stream parser cut it.
func (m *sockmapMode) received() bool { return m.program == skbPass || m.program == skbRedirect }

// normal is the mode without a program that m compares with.
func (m *sockmapMode) normal() string {
	if strings.HasPrefix(m.name, "rx-") {
		return "rx-normal"
	}
	return "tx-normal"
}

// SockmapModes returns the names of all modes.
func SockmapModes() (names []string) {
	for _, m := range sockmapModes() {
		names = append(names, m.name)
	}
	return names
}

func isMode(path string) bool { return slices.Contains(SockmapModes(), path) }

func isNormalMode(path string) bool {
	m, ok := sockmapModeOf(path)
	return ok && m.program == noProgram
}

func sockmapModeOf(name string) (sockmapMode, bool) {
	for _, m := range sockmapModes() {
		if m.name == name {
			return m, true
		}
	}
	return sockmapMode{}, false
}

// SockmapOptions says what [RunSockmap] is to measure.
type SockmapOptions struct {
	Modes     []string // see [SockmapModes]
	Consumers []string // see [SockmapConsumers]
	Rounds    int
	Duration  time.Duration // measured part of each round
	Warmup    time.Duration // before it
	Size      int           // bytes of one sendfile(2) or send(2)
	// Parse has a stream parser cut what is received into messages of so many
	// bytes; 0 is none. It takes AllowParsers as well.
	Parse        int
	AllowParsers bool
	// Delay has the consumer take nothing for so long, after the first bytes.
	// Then all is sent with send(2) instead of sendfile(2): what is queued takes
	// memory, which is to be seen.
	Delay time.Duration
	// MaxQueued is how far the sender may be ahead of the consumer, wherever
	// the bytes are. A redirect has no bound of its own.
	MaxQueued int64
	Tool      string // name and version, for the report

	// OnProgress is called from one goroutine, often.
	OnProgress func(Progress)
}

// DefaultSockmapOptions measure for about a minute.
func DefaultSockmapOptions() SockmapOptions {
	const (
		size   = 128 << 10 // as in the kernel's own
		queued = 64 << 20
	)
	return SockmapOptions{
		Modes:     SockmapModes(),
		Consumers: SockmapConsumers(),
		Rounds:    5,
		Duration:  500 * time.Millisecond,
		Warmup:    200 * time.Millisecond,
		Size:      size,
		MaxQueued: queued,
	}
}

// ParsersAllowed is the environment variable that has to be 1 for a stream
// parser to be run.
const ParsersAllowed = "SPLICED_STREAM_PARSERS"

// Validate returns a [UsageError] that names the first wrong value.
func (o *SockmapOptions) Validate() error {
	if err := distinct("mode", o.Modes); err != nil {
		return err
	}
	for _, name := range o.Modes {
		if _, ok := sockmapModeOf(name); !ok {
			return usagef("mode %q: want one of %s", name, strings.Join(SockmapModes(), ", "))
		}
	}
	if err := distinct("consumer", o.Consumers); err != nil {
		return err
	}
	for _, name := range o.Consumers {
		if !slices.Contains(SockmapConsumers(), name) {
			return usagef("consumer %q: want one of %s", name, strings.Join(SockmapConsumers(), ", "))
		}
	}
	if err := validateRounds(o.Rounds, o.Duration, o.Warmup, o.Size); err != nil {
		return err
	}
	const (
		longestDelay = time.Minute
		least, most  = 1 << 20, 16 << 30
	)
	switch {
	case o.Size < 1:
		return usagef("size %d: want 1 to %d bytes", o.Size, maxChunk)
	case o.Parse < 0 || o.Parse > maxChunk:
		return usagef("strp %d: want 1 to %d bytes, 0 for none", o.Parse, maxChunk)
	case o.Parse > 0 && !slices.ContainsFunc(o.Modes, func(name string) bool { m, _ := sockmapModeOf(name); return m.received() }):
		return usagef("strp %d: a stream parser belongs to the modes rx-pass, rx-verdict-egress and rx-verdict-ingress", o.Parse)
	case o.Parse > 0 && !o.AllowParsers:
		return usagef("strp %d: refused, as a stream parser has led to a kernel's BUG in tcp_collapse (Linux 6.18), after which the machine is to be restarted: set %s=1 on a machine that may crash", o.Parse, ParsersAllowed)
	case o.Delay < 0 || o.Delay > longestDelay:
		return usagef("delay of the consumer %v: want 0s to %v", o.Delay, longestDelay)
	case o.MaxQueued < least || o.MaxQueued > most:
		return usagef("max-queued %d: want %s to %s", o.MaxQueued, sizeText(int64(least)), sizeText(int64(most)))
	}
	return nil
}

func (o *SockmapOptions) workloads() (names []string) {
	for _, consumer := range o.Consumers {
		names = append(names, sockmapWorkloads+consumer)
	}
	return names
}

func (o *SockmapOptions) config() Config {
	return Config{
		Topology:       TopologyLoopback,
		Paths:          o.Modes,
		Workloads:      o.workloads(),
		Rounds:         o.Rounds,
		DurationS:      o.Duration.Seconds(),
		WarmupS:        o.Warmup.Seconds(),
		Streams:        []int{1},
		Size:           o.Size,
		ParseBytes:     o.Parse,
		DelayS:         o.Delay.Seconds(),
		MaxQueuedBytes: o.MaxQueued,
	}
}

// describe is how a mode is written down beside its results.
func (m *sockmapMode) describe(parse int) Peer {
	p := Peer{Path: m.name, Name: m.way}
	if parse > 0 && m.received() {
		p.Configuration = fmt.Sprintf("stream parser: messages of %d bytes", parse)
	}
	return p
}

// unlikeSockmaps says what makes the results of two runs of [RunSockmap]
// incomparable; "" if nothing does, or if they are of something else.
func unlikeSockmaps(workload string, a, b *Config) string {
	switch {
	case !strings.HasPrefix(workload, sockmapWorkloads):
		return ""
	case a.ParseBytes != b.ParseBytes:
		return fmt.Sprintf("stream parser of %d bytes, then %d (0 is none)", a.ParseBytes, b.ParseBytes)
	case a.DelayS != b.DelayS:
		return fmt.Sprintf("consumer delayed by %s s, then %s", number(a.DelayS), number(b.DelayS))
	case a.MaxQueuedBytes != b.MaxQueuedBytes:
		return fmt.Sprintf("at most %s queued, then %s", sizeText(a.MaxQueuedBytes), sizeText(b.MaxQueuedBytes))
	}
	return ""
}
