package netbench

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"
)

// A connection from the source begins with a header that tells the sink what
// to do. Then the two exchange pattern bytes. At the source's FIN the sink
// answers with its verdict and a FIN of its own: so every connection also
// proves that the path keeps the two directions apart. Where the source only
// sends, the sink says with one byte of its own stream that the first have come:
// from then on the load's time runs at both ends. Only kindOnce has no
// verdict, which would weigh more than what is measured: its end is a FIN each
// way, and a last word of one byte where the header asks for it.

// kind is what the sink does with a connection.
type kind uint8

const (
	kindBulk    kind = iota + 1 // read to the end
	kindEcho                    // answer each message, one thread a connection
	kindHold                    // the same, without a thread: for many connections
	kindOnce                    // answer one message
	kindStall                   // read nothing until the load's kindRelease has come, then as bulk
	kindRelease                 // end the stalls of the load
)

const (
	headerSize  = 64
	headerMagic = "splbnch3"
	flagBoth    = 1 // the sink sends too
	flagWord    = 2 // the sink of a kindOnce has a last word

	verdictSize  = 1024
	verdictMagic = "splvrdt3"
	verdictHead  = 16
)

// lastWord is how many bytes the sink of a kindOnce sends after the source's
// FIN, if it is asked to.
const lastWord = 1

// responseBit tells the sink's stream from the source's of the same connection.
const responseBit = 1 << 63

type header struct {
	kind   kind
	both   bool
	word   bool
	size   int    // of a message, or of the sink's writes
	stream uint64 // below responseBit
	load   uint64 // the streams of one load share it, and so a window
	// streams is how many those are, and settle how long the window waits for
	// the last of them after the first.
	streams int
	settle  time.Duration
	window  windowTimes
	stall   time.Duration // the longest that a kindStall waits for its release
}

var errNoHeader = errors.New("the connection does not begin with a valid header")

// otherVersion tells whether magic is want, but for the digit at the end.
func otherVersion(magic []byte, want string) bool {
	last := len(want) - 1
	return string(magic[:last]) == want[:last] && magic[last] != want[last] && magic[last] >= '0' && magic[last] <= '9'
}

func (h header) marshal() []byte {
	b := make([]byte, headerSize)
	copy(b, headerMagic)
	b[8] = byte(h.kind)
	if h.both {
		b[9] |= flagBoth
	}
	if h.word {
		b[9] |= flagWord
	}
	binary.BigEndian.PutUint16(b[10:], uint16(h.streams))
	binary.BigEndian.PutUint32(b[12:], uint32(h.size))
	binary.BigEndian.PutUint64(b[16:], h.stream)
	binary.BigEndian.PutUint64(b[24:], uint64(h.window.warmup))
	binary.BigEndian.PutUint64(b[32:], uint64(h.window.duration))
	binary.BigEndian.PutUint64(b[40:], uint64(h.stall))
	binary.BigEndian.PutUint64(b[48:], h.load)
	binary.BigEndian.PutUint32(b[56:], uint32(h.settle.Milliseconds()))
	binary.BigEndian.PutUint32(b[headerSize-4:], crc32.ChecksumIEEE(b[:headerSize-4]))
	return b
}

func readHeader(r io.Reader) (header, error) {
	var b [headerSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return header{}, fmt.Errorf("read header: %w", err)
	}
	if otherVersion(b[:8], headerMagic) {
		return header{}, fmt.Errorf("%w of this version: the source speaks %q, the sink %q", errNoHeader, b[:8], headerMagic)
	}
	if string(b[:8]) != headerMagic || binary.BigEndian.Uint32(b[headerSize-4:]) != crc32.ChecksumIEEE(b[:headerSize-4]) {
		return header{}, errNoHeader
	}
	h := header{
		kind:   kind(b[8]),
		both:   b[9]&flagBoth != 0,
		word:   b[9]&flagWord != 0,
		size:   int(binary.BigEndian.Uint32(b[12:])),
		stream: binary.BigEndian.Uint64(b[16:]),
		window: windowTimes{
			warmup:   time.Duration(binary.BigEndian.Uint64(b[24:])),
			duration: time.Duration(binary.BigEndian.Uint64(b[32:])),
		},
		stall: time.Duration(binary.BigEndian.Uint64(b[40:])),
		load:  binary.BigEndian.Uint64(b[48:]),

		streams: int(binary.BigEndian.Uint16(b[10:])),
		settle:  time.Duration(binary.BigEndian.Uint32(b[56:])) * time.Millisecond,
	}
	if h.kind < kindBulk || h.kind > kindRelease || h.size < 1 || h.size > maxChunk {
		return header{}, errNoHeader
	}
	const longest = 4 * time.Hour // three of them are an hour at most, see [Options.Validate]
	for _, d := range []time.Duration{h.window.warmup, h.window.duration, h.stall, h.settle} {
		if d < 0 || d > longest {
			return header{}, errNoHeader
		}
	}
	return h, nil
}

// verdict is what the sink found out about a connection.
type verdict struct {
	Received int64     `json:"received"` // payload, verified up to Error
	Sent     int64     `json:"sent"`
	InWindow int64     `json:"in_window"` // of what was received, what came within the load's window
	Error    string    `json:"error,omitempty"`
	Rcvbuf   int       `json:"rcvbuf,omitempty"`
	TCP      transport `json:"tcp"`
}

// transport is what the kernel says about a connection; zero elsewhere than on
// Linux.
type transport struct {
	RTTUs       float64 `json:"rtt_us,omitempty"`
	Cwnd        int     `json:"cwnd,omitempty"`
	Retransmits int     `json:"retransmits,omitempty"`
}

func (v verdict) marshal() ([]byte, error) {
	text, err := json.Marshal(v)
	if err == nil && len(text) > verdictSize-verdictHead {
		v.Error = v.Error[:min(len(v.Error), 200)]
		text, err = json.Marshal(v)
	}
	if err != nil {
		return nil, err
	}
	b := make([]byte, verdictSize)
	copy(b, verdictMagic)
	binary.BigEndian.PutUint32(b[8:], uint32(len(text)))
	copy(b[verdictHead:], text)
	binary.BigEndian.PutUint32(b[12:], verdictSum(b))
	return b, nil
}

// verdictSum is over all of the block, so that a path which spoils what is
// only padding is caught too.
func verdictSum(b []byte) uint32 {
	sum := crc32.ChecksumIEEE(b[:12])
	return crc32.Update(sum, crc32.IEEETable, b[verdictHead:])
}

func parseVerdict(b []byte) (v verdict, err error) {
	if len(b) == verdictSize && otherVersion(b[:8], verdictMagic) {
		return v, fmt.Errorf("the sink is of another version: it speaks %q, the source %q", b[:8], verdictMagic)
	}
	if len(b) != verdictSize || string(b[:8]) != verdictMagic {
		return v, errors.New("the sink's verdict is damaged")
	}
	size := binary.BigEndian.Uint32(b[8:])
	if size > verdictSize-verdictHead {
		return v, errors.New("the sink's verdict is damaged")
	}
	if verdictSum(b) != binary.BigEndian.Uint32(b[12:]) {
		return v, errors.New("the sink's verdict is damaged")
	}
	text := b[verdictHead:][:size]
	if err := json.Unmarshal(text, &v); err != nil {
		return v, fmt.Errorf("read the sink's verdict: %w", err)
	}
	return v, nil
}
