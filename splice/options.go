package splice

import (
	"fmt"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/engine"
)

// An Option changes how [Relay], [Start] and [Copy] work. Without any, bytes
// flow without limit until both sides have ended.
type Option func(*options)

type options struct {
	engine           Engine
	maxAToB, maxBToA int64
	fromA, fromB     []byte
	idle             time.Duration
	halfClose        time.Duration
	lifetime         time.Duration
	rateAToB         int64
	rateBToA         int64
	sharedAToB       *Bandwidth
	sharedBToA       *Bandwidth
	own              bool
	onEnd            func(Result)
	onSockets        func(held bool)
	note             func(Flow) string
	wire             engine.WirePolicy
	past             *Past
	sockets          *[2]SocketOptions
}

// Engine names a way of moving bytes between two connections.
type Engine = engine.Kind

const (
	// EngineAuto chooses by the traffic: small messages are copied, streams
	// are spliced.
	EngineAuto = engine.Auto
	// EngineCopy reads into a buffer and writes from it.
	EngineCopy = engine.Copy
	// EngineSplice moves page references through a pipe with splice(2); small
	// messages are copied, which is faster.
	EngineSplice = engine.Splice
	// EngineSockmap has a BPF program redirect bytes from socket to socket as
	// long as the drain's send buffer has room, and copies the others. It is for
	// TCP, needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, and is hardly ever the
	// fastest: docs/engines.md. A pair that can't be redirected stays with copy
	// and splice, and [Stats] says why. While a session runs, its sockets are in
	// a sockmap: nobody else may read them.
	EngineSockmap = engine.Sockmap
	// EngineWire hands the pair over to a BPF program as early as possible:
	// it translates the packets of one side into those of the other, and the
	// sockets are gone. Needs root or the capabilities of docs/wire.md, and
	// Linux 6.6. A pair that can't be handed over stays with splice, and
	// [Stats] says why. Who dials the servers uses [DialControl], or has
	// [Forward] do it.
	EngineWire = engine.Wire
)

// ParseEngine returns the engine of that name: auto, copy, splice, sockmap or
// wire.
func ParseEngine(name string) (Engine, error) { return engine.ParseKind(name) }

// Use names the engine. One that this system can't run is an error of Start,
// never a silent replacement; [EngineAuto], the default, always finds one.
func Use(e Engine) Option { return func(o *options) { o.engine = e } }

// MaxBytes ends a direction after exactly that many bytes, prefetched ones
// included. The byte after the last stays readable on its connection. 0 is no
// limit; a negative limit is EINVAL.
func MaxBytes(aToB, bToA int64) Option {
	return func(o *options) { o.maxAToB, o.maxBToA = aToB, bToA }
}

// IdleTimeout ends both directions when no byte has moved in either for d.
// 0 is no limit; a negative duration is EINVAL.
func IdleTimeout(d time.Duration) Option { return func(o *options) { o.idle = d } }

// HalfCloseTimeout takes the place of [IdleTimeout] once one direction has
// ended: the other may then be idle for at most d. 0 keeps the idle timeout.
func HalfCloseTimeout(d time.Duration) Option { return func(o *options) { o.halfClose = d } }

// MaxRate bounds each direction to so many bytes a second. A tenth of a second's
// bytes may go at once after a pause; what was prefetched is not counted. A
// session with a limit of bandwidth is not handed over to [EngineWire], and
// [Stats] says why. 0 is no limit; a negative one is EINVAL.
func MaxRate(aToB, bToA int64) Option {
	return func(o *options) { o.rateAToB, o.rateBToA = aToB, bToA }
}

// ShareRate bounds each direction, together with all others that share the same
// [Bandwidth], which get it in turns. nil is no limit.
func ShareRate(aToB, bToA *Bandwidth) Option {
	return func(o *options) { o.sharedAToB, o.sharedBToA = aToB, bToA }
}

// A Bandwidth is for [ShareRate].
type Bandwidth = engine.Bandwidth

// NewBandwidth makes a Bandwidth of that many bytes a second, at least 1.
func NewBandwidth(bytesPerSecond int64) *Bandwidth { return engine.NewBandwidth(bytesPerSecond) }

// SocketOptions are those of a TCP socket. A zero field is the default: a peer is
// asked for a sign of life after 2 minutes, and 4 times in all, 15 seconds apart; the
// rest is the system's.
type SocketOptions = engine.SocketOptions

// Sockets sets options of a's and b's TCP sockets, on Linux, where the session moves
// their bytes itself. They stay in force when the session gives the connections back.
func Sockets(a, b SocketOptions) Option {
	return func(o *options) {
		if o.sockets = nil; a != (SocketOptions{}) || b != (SocketOptions{}) {
			o.sockets = &[2]SocketOptions{a, b}
		}
	}
}

// MaxLifetime ends both directions d after the start, busy or not. Connections
// that the session owns are reset then, as soon as their peers have what was
// sent to them, and 5 seconds later at the latest.
func MaxLifetime(d time.Duration) Option { return func(o *options) { o.lifetime = d } }

// Prefetched hands over bytes that were already read from a and from b. They
// are delivered before anything still queued on the connections. The slices
// must not be changed until the session has ended.
func Prefetched(fromA, fromB []byte) Option {
	return func(o *options) { o.fromA, o.fromB = fromA, fromB }
}

// Own gives both connections to the session: the values passed to Start are
// closed when Start returns without an error, and the session closes the
// sockets when it ends. A session that a [Session.Stop] has ended keeps them
// open for [Session.Conns].
func Own() Option { return func(o *options) { o.own = true } }

// OnEnd calls f once, when the session has ended and before [Session.Done] is
// closed. It runs on the goroutine that moves bytes, for other sessions too: it
// must not block, nor wait for the session.
func OnEnd(f func(Result)) Option { return func(o *options) { o.onEnd = f } }

// OnSockets calls f when the session, handed over to [EngineWire], has let its
// sockets go (held is false), and when it is about to have some again. That is for those who
// count descriptors: it is not called for a session with a limit of bytes, which will want
// some again, nor at the end. f is called by a goroutine that moves bytes, and must not
// block.
func OnSockets(f func(held bool)) Option { return func(o *options) { o.onSockets = f } }

// Note has f asked when the session is handed over to [EngineWire] under the name of an instance:
// what it says goes with the flow, and whoever adopts that, with [AdoptWire], has it by
// [Session.Note]. A text of more than [NoteSize] bytes is none. f is called by a goroutine that moves
// bytes, and must not block.
func Note(f func(Flow) string) Option { return func(o *options) { o.note = f } }

func (o *options) check() error {
	if o.maxAToB < 0 || o.maxBToA < 0 || o.idle < 0 || o.halfClose < 0 || o.lifetime < 0 ||
		o.rateAToB < 0 || o.rateBToA < 0 {
		return fmt.Errorf("negative limit: %w", syscall.EINVAL)
	}
	switch o.engine {
	case EngineAuto, EngineCopy, EngineSplice, EngineSockmap, EngineWire:
		return nil
	}
	return fmt.Errorf("%s: %w", o.engine, syscall.EINVAL)
}

// longest is what longer durations are cut to: added to a clock they overflow.
const longest = 10 * 365 * 24 * time.Hour

func (o *options) limits() engine.Limits {
	return engine.Limits{
		MaxAToB: o.maxAToB, MaxBToA: o.maxBToA,
		Idle: min(o.idle, longest), HalfClose: min(o.halfClose, longest), Lifetime: min(o.lifetime, longest),
		RateAToB: o.rateAToB, RateBToA: o.rateBToA, SharedAToB: o.sharedAToB, SharedBToA: o.sharedBToA,
		Sockets: o.sockets,
	}
}
