package adminapi

import (
	"time"

	"github.com/spliced-io/spliced/splice"
)

// The types below are the JSON of the API: a contract, see docs/run.md. In the
// tags, doc is the description in the OpenAPI file, and enum the values there are.

// Status is the daemon as a whole.
type Status struct {
	Version  string    `json:"version" doc:"of the program"`
	PID      int       `json:"pid" doc:"its process"`
	Started  time.Time `json:"started" doc:"the process, which an upgrade replaces"`
	UptimeS  float64   `json:"uptime_s" doc:"seconds since then"`
	State    string    `json:"state" enum:"running,draining" doc:"draining: it ends, or another process has its place"`
	Ready    bool      `json:"ready" doc:"it accepts connections"`
	LogLevel string    `json:"log_level" enum:"debug,info,warn,error"`
	Config   Config    `json:"config"`
	Reload   *Reload   `json:"reload,omitempty" doc:"the last one; absent: there was none"`
	Counts
	Adopted uint64 `json:"adopted" doc:"connections that an earlier process has left to the engine wire"`
	Held    uint64 `json:"held" doc:"times that new clients had to wait, for the limit of connections or for want of descriptors"`
}

// Config says which configuration is in force.
type Config struct {
	Path   string       `json:"path" doc:"as it was named"`
	Loaded time.Time    `json:"loaded" doc:"when it was read"`
	Files  []ConfigFile `json:"files" doc:"it, and what it includes"`
}

// A ConfigFile is one as it was read.
type ConfigFile struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256" doc:"of its content when it was read, as sha256sum(1) prints it"`
}

// Reload is how a reload has gone.
type Reload struct {
	Time  time.Time `json:"time"`
	OK    bool      `json:"ok"`
	Error string    `json:"error,omitempty" doc:"why the old configuration stays in force"`
}

// Counts are of clients and bytes. Those that end in no present state never fall.
type Counts struct {
	Accepted        uint64 `json:"accepted" doc:"clients"`
	Failed          uint64 `json:"failed" doc:"of these, joined to no server"`
	Ended           uint64 `json:"ended" doc:"of these, joined and ended"`
	Open            int    `json:"open" doc:"accepted and not yet ended"`
	Joined          int    `json:"joined" doc:"of these, joined"`
	MaxOpen         int    `json:"max_open" doc:"how many may be open; 0: no limit of its own"`
	BytesToTarget   int64  `json:"bytes_to_target" doc:"delivered, those of live sessions included"`
	BytesToClient   int64  `json:"bytes_to_client"`
	SplicedToTarget int64  `json:"spliced_to_target" doc:"of these, moved as page references by splice(2)"`
	SplicedToClient int64  `json:"spliced_to_client"`
}

// Listeners is the answer to GET /v1/listeners.
type Listeners struct {
	Listeners []Listener `json:"listeners" doc:"by name"`
}

// A Listener accepts clients.
type Listener struct {
	Name      string   `json:"name"`
	Addresses []string `json:"addresses" doc:"as bound: host:port or unix:/path"`
	Routes    []Route  `json:"routes" doc:"in their order"`
	Counts
	Engines  []EngineUse       `json:"engines" doc:"what carries its sessions: copy, splice, sockmap, wire"`
	Failures map[string]uint64 `json:"failures" doc:"clients that were not joined, by reason"`
	Ends     []EndCount        `json:"ends" doc:"ended directions, by reason"`
	Refusals []RefusalCount    `json:"refusals" doc:"ended sessions, by the engine that they could not have"`
}

// A Route of a listener.
type Route struct {
	Name     string `json:"name,omitempty"`
	When     string `json:"when" doc:"its conditions, in words"`
	Upstream string `json:"upstream,omitempty" doc:"absent: the connection is reset"`
}

// EngineUse is what an engine does for a listener.
type EngineUse struct {
	Engine        splice.Engine `json:"engine" enum:"copy,splice,sockmap,wire"`
	Joined        int           `json:"joined" doc:"sessions that it carries now"`
	BytesToTarget int64         `json:"bytes_to_target"`
	BytesToClient int64         `json:"bytes_to_client"`
}

// EndCount counts ends of a kind.
type EndCount struct {
	Direction string `json:"direction" enum:"to_target,to_client"`
	Reason    string `json:"reason"`
	Count     uint64 `json:"count"`
}

// RefusalCount counts refusals of a kind.
type RefusalCount struct {
	Engine splice.Engine `json:"engine" enum:"copy,splice,sockmap,wire"`
	Reason string        `json:"reason"`
	Count  uint64        `json:"count"`
}

// Upstreams is the answer to GET /v1/upstreams.
type Upstreams struct {
	Upstreams []Upstream `json:"upstreams" doc:"by name"`
}

// An Upstream is a group of servers.
type Upstream struct {
	Name       string       `json:"name"`
	Balance    string       `json:"balance" enum:"round-robin,least-connections,random-two,first,maglev"`
	Queued     int          `json:"queued" doc:"clients that wait for a server with room"`
	MaxQueue   int          `json:"max_queue" doc:"how many may"`
	Servers    []Server     `json:"servers" doc:"in the order of the configuration"`
	Unresolved []Unresolved `json:"unresolved,omitempty" doc:"names that could not be resolved when last asked for"`
}

// An Unresolved name, and why.
type Unresolved struct {
	Name  string `json:"name"`
	Error string `json:"error"`
}

// A Server of an upstream.
type Server struct {
	Name             string            `json:"name" doc:"the address as configured; of a name: name=address"`
	Address          string            `json:"address" doc:"that is dialled"`
	State            string            `json:"state" enum:"up,unchecked,down,ejected,draining" doc:"up and unchecked are used; of several the last of this list"`
	Since            *time.Time        `json:"since,omitempty" doc:"it came up or went down; absent: at the start"`
	Error            string            `json:"error,omitempty" doc:"of the last check that failed, or why it is ejected"`
	Draining         bool              `json:"draining" doc:"an operator keeps new connections from it"`
	Down             bool              `json:"down" doc:"its checks fail"`
	Ejected          bool              `json:"ejected" doc:"clients found it broken"`
	EjectedUntil     *time.Time        `json:"ejected_until,omitempty"`
	Ejections        int               `json:"ejections" doc:"since it was last forgiven"`
	Backup           bool              `json:"backup" doc:"used when none of the others is up"`
	Weight           int               `json:"weight" doc:"in force"`
	ConfiguredWeight int               `json:"configured_weight" doc:"another one than weight if an operator has set that"`
	Active           int               `json:"active" doc:"connections, those being made included"`
	MaxActive        int               `json:"max_active" doc:"how many it may have; 0: any number"`
	Connected        uint64            `json:"connected" doc:"connects that have worked"`
	ConnectFailed    uint64            `json:"connect_failed" doc:"and that have not"`
	ConnectFailures  map[string]uint64 `json:"connect_failures" doc:"these, by reason"`
	EarlyResets      uint64            `json:"early_resets" doc:"connections that it has reset before its first byte"`
	Checks           uint64            `json:"checks"`
	ChecksFailed     uint64            `json:"checks_failed"`
	BytesToTarget    int64             `json:"bytes_to_target"`
	BytesToClient    int64             `json:"bytes_to_client"`
}

// Sessions is the answer to GET /v1/sessions.
type Sessions struct {
	Sessions []Session `json:"sessions" doc:"by id"`
	Next     uint64    `json:"next,omitempty" doc:"there are more: ask again with after=this"`
}

// A Session is a client that is joined with a server.
type Session struct {
	ID              uint64        `json:"id" doc:"counts from 1, is in the log, and stays over an upgrade"`
	Listener        string        `json:"listener,omitempty"`
	Route           string        `json:"route,omitempty"`
	Upstream        string        `json:"upstream,omitempty"`
	Server          string        `json:"server,omitempty"`
	Client          string        `json:"client" doc:"host:port, or unix"`
	Target          string        `json:"target" doc:"that was dialled: host:port, or unix:/path"`
	Local           string        `json:"local,omitempty" doc:"the target's client: the address that the session comes from"`
	SNI             string        `json:"sni,omitempty" doc:"the name that a TLS client has sent; absent if nobody looked"`
	Engine          splice.Engine `json:"engine" enum:"copy,splice,sockmap,wire" doc:"of the direction that has carried more"`
	EngineReason    string        `json:"engine_reason" doc:"why that one"`
	BytesToTarget   int64         `json:"bytes_to_target" doc:"delivered"`
	BytesToClient   int64         `json:"bytes_to_client"`
	SplicedToTarget int64         `json:"spliced_to_target" doc:"of these, moved as page references by splice(2)"`
	SplicedToClient int64         `json:"spliced_to_client"`
	EndToTarget     string        `json:"end_to_target" doc:"running until the direction has ended"`
	EndToClient     string        `json:"end_to_client"`
	Started         time.Time     `json:"started" doc:"when the client was joined"`
	LastProgress    time.Time     `json:"last_progress" doc:"when a byte last moved"`
	Wire            *Wire         `json:"wire,omitempty" doc:"its way to the engine wire; absent: nothing to tell"`
}

// Wire is a session's way to the engine wire.
type Wire struct {
	HandedOver          bool       `json:"handed_over"`
	Returned            bool       `json:"returned" doc:"and was taken back into sockets"`
	Attempts            int        `json:"attempts"`
	Refused             string     `json:"refused,omitempty" doc:"why not"`
	ClosedMS            float64    `json:"closed_ms" doc:"for so long windows were closed to bring the session to rest"`
	BytesToTarget       int64      `json:"bytes_to_target"`
	BytesToClient       int64      `json:"bytes_to_client"`
	PacketsToTarget     uint64     `json:"packets_to_target"`
	PacketsToClient     uint64     `json:"packets_to_client"`
	RetransmitsToTarget uint64     `json:"retransmits_to_target"`
	RetransmitsToClient uint64     `json:"retransmits_to_client"`
	ErrorsToTarget      uint64     `json:"errors_to_target"`
	ErrorsToClient      uint64     `json:"errors_to_client"`
	TooBigToTarget      uint64     `json:"too_big_to_target" doc:"packets that did not fit the interface that they were to leave by"`
	TooBigToClient      uint64     `json:"too_big_to_client"`
	Late                int        `json:"late" doc:"segments that reached a socket when the session was handed over already: the sockets delivered them"`
	LastSeen            *time.Time `json:"last_seen,omitempty" doc:"the last packet of either side, if it moved no byte too"`
}

// A Snapshot is a line of GET /v1/watch.
type Snapshot struct {
	Time      time.Time     `json:"time"`
	Status    Status        `json:"status"`
	Listeners []Listener    `json:"listeners"`
	Upstreams []Upstream    `json:"upstreams"`
	Sessions  []BusySession `json:"sessions,omitempty" doc:"the busiest since the last line, as many as were asked for"`
}

// A BusySession is a session with what it has carried lately.
type BusySession struct {
	Session
	RateToTarget float64 `json:"rate_to_target" doc:"bytes a second since the last line, or since the session's start"`
	RateToClient float64 `json:"rate_to_client"`
}

// Weight is the body of POST /v1/upstreams/{upstream}/servers/{server}/weight.
type Weight struct {
	Weight *int `json:"weight" doc:"1 to 1000; 0: as configured"`
}

// LogLevel is the answer to GET /v1/log-level, and the body of PUT.
type LogLevel struct {
	Level string `json:"level" enum:"debug,info,warn,error" doc:"the least important of what is logged"`
}

// Upgraded is the answer to POST /v1/upgrade.
type Upgraded struct {
	PID int `json:"pid" doc:"the process that answers from now on"`
}

// Failure is the answer to whatever can't be done.
type Failure struct {
	Error *Error `json:"error"`
}
