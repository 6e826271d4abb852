package job

import "time"

// Directions index what is given per direction.
const (
	Read = iota
	Write
	Trim
	Directions
)

// A Triple holds one value a direction: read, write, trim.
type Triple[T any] [Directions]T

// A Span is a range of sizes, inclusive, in bytes.
type Span struct{ Min, Max uint64 }

// A Share is a block size with the percentage of the I/O that uses it.
type Share struct {
	Size    uint64
	Percent int
}

// An Amount is bytes, or a percentage of something that the option names.
type Amount struct {
	Bytes   uint64
	Percent float64 // 0: Bytes holds
}

// A Zone is one entry of a zoned random_distribution: Access percent of the
// I/O go to Size percent (or bytes, if absolute) of the file.
type Zone struct {
	Access int
	Size   uint64
}

// A Distribution says how random offsets spread.
type Distribution struct {
	Kind   string // random, zipf, pareto, normal, zoned, zoned_abs, sequence
	Theta  float64
	Center float64 // 0..1; negative: not given
	Zones  Triple[[]Zone]
	Blocks []uint64 // of a sequence
}

// A Pattern fills buffers. At holds the places of %o, which stand for the
// block's offset.
type Pattern struct {
	Bytes []byte
	At    []int
}

// Options are one job's, with fio's defaults where nothing was said.
type Options struct {
	Name        string
	Section     string // where it stands, which files are named after: not name=
	Description string

	// Job control.
	NumJobs         int
	Thread          bool
	Stonewall       bool
	WaitFor         string
	StartDelay      [2]time.Duration // a random one between both
	ExitAll         bool
	ExitWhat        string
	ExitAllOnError  bool
	Loops           int
	NewGroup        bool
	GroupReporting  bool
	Stats           bool
	CreateOnly      bool
	ContinueOnError string
	IgnoreError     Triple[[]int]
	ExecBefore      string // shell commands
	ExecAfter       string

	// Type and size.
	RW              string // as documented, "readwrite" for "rw"
	RWCount         int    // rw=read:N, "nr" of random offsets
	RWSkip          int64  // rw=read:N, bytes for sequential
	RWSequencer     string
	MixRead         int
	BS              Triple[Span]
	BSSplit         Triple[[]Share]
	BSUnaligned     bool
	BSIsSeqRand     bool
	BlockAlign      Triple[uint64]
	Size            Amount
	IOSize          Amount
	FileSize        Span
	Offset          Amount
	OffsetAlign     uint64
	OffsetIncrement Amount
	NumberIOs       uint64
	FillDevice      bool
	FileAppend      bool

	// Time.
	Runtime   time.Duration
	TimeBased bool
	RampTime  time.Duration
	RampSize  uint64

	Steady         SteadyState
	SteadyDuration time.Duration
	SteadyRamp     time.Duration
	SteadyInterval time.Duration

	// Target.
	Filename        string
	Directory       string
	FilenameFormat  string
	UniqueFilename  bool
	NrFiles         int
	OpenFiles       int
	FileService     string
	FileServiceArg  float64
	FileServiceNr   int
	Fallocate       string
	CreateSerialize bool
	CreateFsync     bool
	CreateOnOpen    bool
	AllowCreate     bool
	AllowMounted    bool
	Unlink          bool
	UnlinkEachLoop  bool
	PreRead         bool
	Invalidate      bool
	Overwrite       bool
	Fsync           int
	Fdatasync       int
	EndFsync        bool
	FsyncOnClose    bool

	// I/O.
	Engine           string
	Direct           bool
	SyncIO           string
	IODepth          int
	DepthBatch       int
	DepthCompleteMin int
	DepthCompleteMax int
	DepthLow         int
	Serialize        bool
	SubmitMode       string
	Mem              string
	MemAlign         uint64
	HugePage         uint64
	LockMemory       uint64
	Fadvise          string

	// Data.
	BufferPattern *Pattern
	ZeroBuffers   bool
	RefillBuffers bool
	Scramble      bool
	Compress      int // percent; negative: not given
	CompressChunk uint64
	Dedupe        int

	// Random.
	Dist          Distribution
	SeqStride     bool
	PercentRandom Triple[int]
	NoRandomMap   bool
	SoftRandomMap bool
	Generator     string
	Seed          uint64
	RandRepeat    bool

	// Rate and thinktime.
	Rate              Triple[uint64]
	RateMin           Triple[uint64]
	RateIOPS          Triple[uint64]
	RateIOPSMin       Triple[uint64]
	RateProcess       string
	RateCycle         time.Duration
	RateIgnoreThink   bool
	ThinkTime         time.Duration
	ThinkSpin         time.Duration
	ThinkIOTime       time.Duration
	ThinkBlocks       uint64
	ThinkBlocksIssued bool
	Flow              int
	FlowID            int
	FlowSleep         time.Duration

	// Latency.
	MaxLatency        Triple[time.Duration]
	LatencyTarget     time.Duration
	LatencyWindow     time.Duration
	LatencyPercentile float64
	LatencyRun        bool

	// Verify.
	Verify             string // "": none
	DoVerify           bool
	VerifyOnly         bool
	VerifyInterval     uint64
	VerifyOffset       uint64
	VerifyPattern      *Pattern
	VerifyFatal        bool
	VerifyAsync        int // checkers beside the job
	VerifyAsyncCPUs    []int
	VerifyDump         bool
	VerifyBacklog      uint64
	VerifyBacklogBatch uint64
	VerifySequence     bool
	VerifyHeaderSeed   bool
	VerifyStateSave    bool
	VerifyStateLoad    bool
	Experimental       bool

	// Logs. A name is nil where no log was asked for, "" for the job's name.
	BWLog, LatLog, IOPSLog, HistLog *string
	IOLog                           string
	LogAvg                          time.Duration
	LogHist                         time.Duration
	LogHistCoarseness               int
	LogWindow                       string
	LogOffset                       bool
	LogPrio                         bool
	LogIssueTime                    bool
	LogEpoch                        bool
	PerJobLogs                      bool
	BWAvg, IOPSAvg                  time.Duration

	// Reporting.
	ClatPercentiles bool
	LatPercentiles  bool
	SlatPercentiles bool
	Percentiles     []float64
	SigFigs         int
	DiskUtil        bool
	GtodReduce      bool
	NoLat           bool
	NoClat          bool
	NoSlat          bool
	NoBW            bool
	Unified         string
	KBBase          uint64
	UnitBase        int

	// Placement.
	CPUs       []int
	CPUsPolicy string
	Nice       int
	Prio       int
	PrioClass  int

	// Engine options.
	Hostname   string
	Port       int
	Protocol   string
	Listen     bool
	NoDelay    bool
	PingPong   bool
	Interface  string
	WindowSize int
	MSS        int

	// Given are the options as they were written, in order, without those of
	// [global].
	Given []Setting
}

// A Setting is an option as written; a bare one has no "=".
type Setting struct {
	Name, Value string
	Bare        bool
}

func (s Setting) String() string {
	if s.Bare {
		return s.Name
	}
	return s.Name + "=" + s.Value
}

// defaults are fio's.
func defaults() Options {
	all := func(n uint64) Triple[Span] { return Triple[Span]{{n, n}, {n, n}, {n, n}} }
	return Options{
		NumJobs: 1, ExitWhat: "group", Loops: 1, Stats: true, ContinueOnError: "none",
		RW: "read", RWSequencer: "sequential", RWCount: 1, MixRead: 50, BS: all(4096),
		FilenameFormat: "$jobname.$jobnum.$filenum", UniqueFilename: true, NrFiles: 1,
		FileService: "roundrobin", FileServiceNr: 1, Fallocate: "native",
		CreateSerialize: true, CreateFsync: true, AllowCreate: true, Invalidate: true,
		Engine: "psync", SyncIO: "none", IODepth: 1, DepthBatch: 1, DepthCompleteMin: 1,
		SubmitMode: "inline", Mem: "malloc", HugePage: 2 << 20, Fadvise: "1",
		Scramble: true, Compress: -1, CompressChunk: 512,
		Dist: Distribution{Kind: "random", Center: -1}, PercentRandom: Triple[int]{100, 100, 100},
		Generator: "tausworthe", Seed: 0x89, RandRepeat: true,
		SteadyInterval: time.Second, RateProcess: "linear", RateCycle: time.Second, ThinkBlocks: 1, LatencyPercentile: 100,
		DoVerify: true, VerifySequence: true, VerifyHeaderSeed: true,
		LogWindow: "avg", PerJobLogs: true, BWAvg: 500 * time.Millisecond, IOPSAvg: 500 * time.Millisecond,
		ClatPercentiles: true, SigFigs: 4, DiskUtil: true, Unified: "none", KBBase: 1024,
		Percentiles: []float64{1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 99.5, 99.9, 99.95, 99.99},
		CPUsPolicy:  "shared", Protocol: "tcp",
	}
}
