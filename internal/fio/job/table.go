package job

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// An option is one that spliced fio has: its names, the first being the one
// that is shown, what it wants, and how it is stored.
type option struct {
	names string
	help  string
	set   setter
}

const maxInt = math.MaxInt32

// options is the table. Times are in seconds unless the help says otherwise.
func options() []option {
	type o = Options
	return []option{
		{"name", "the job's name", text(func(o *o) *string { return &o.Name })},
		{"description", "text for the report", text(func(o *o) *string { return &o.Description })},
		{"numjobs", "how many times the job runs at once", integer(func(o *o) *int { return &o.NumJobs }, 1, 4096)},
		{"thread", "accepted: a job is a thread here, always", flag(func(o *o) *bool { return &o.Thread })},
		{"stonewall wait_for_previous", "wait for all earlier jobs first", flag(func(o *o) *bool { return &o.Stonewall })},
		{"wait_for", "the job whose end to wait for", text(func(o *o) *string { return &o.WaitFor })},
		{"startdelay", "time, or a range of times, to wait before the start", setStartDelay},
		{"exitall", "end the others when this one ends", flag(func(o *o) *bool { return &o.ExitAll })},
		{"exit_what", "whom exitall ends: group, stonewall or all", choice(func(o *o) *string { return &o.ExitWhat }, "group", "stonewall", "all")},
		{"exitall_on_error", "end all jobs when this one fails", flag(func(o *o) *bool { return &o.ExitAllOnError })},
		{"loops", "how many times to repeat", integer(func(o *o) *int { return &o.Loops }, 1, maxInt)},
		{"new_group", "start a new reporting group", flag(func(o *o) *bool { return &o.NewGroup })},
		{"group_reporting", "report the group as one", flag(func(o *o) *bool { return &o.GroupReporting })},
		{"stats", "count this job in the report", flag(func(o *o) *bool { return &o.Stats })},
		{"create_only", "only lay out the files", flag(func(o *o) *bool { return &o.CreateOnly })},
		{"continue_on_error", "which errors do not end the job", choice(func(o *o) *string { return &o.ContinueOnError },
			"none", "read", "write", "io", "verify", "all", "0>none", "1>all")},
		{"exec_prerun", "shell command to run before the job", text(func(o *o) *string { return &o.ExecBefore })},
		{"exec_postrun", "shell command to run after the job", text(func(o *o) *string { return &o.ExecAfter })},
		{"ignore_error", "errnos a direction may meet, separated by :", setIgnoreError},

		{"rw readwrite", "direction and order of the I/O", setRW},
		{
			"rw_sequencer", "where the offset goes between jumps: sequential or identical",
			choice(func(o *o) *string { return &o.RWSequencer }, "sequential", "identical"),
		},
		{"rwmixread", "percentage of reads", setMix(true)},
		{"rwmixwrite", "percentage of writes", setMix(false)},
		{"bs blocksize", "block size, a direction each", setBS},
		{"bsrange blocksize_range", "range of block sizes", setBSRange},
		{"bssplit", "block sizes with their percentages", setBSSplit},
		{"bs_unaligned blocksize_unaligned", "block sizes need not be multiples of the smallest", flag(func(o *o) *bool { return &o.BSUnaligned })},
		{"bs_is_seq_rand", "block sizes are for sequential and random instead of read and write", flag(func(o *o) *bool { return &o.BSIsSeqRand })},
		{"ba blockalign", "alignment of random offsets", byteTriple(func(o *o) *Triple[uint64] { return &o.BlockAlign }, 1)},
		{"size", "bytes of the job, or a percentage of the files", amount(func(o *o) *Amount { return &o.Size })},
		{"io_size io_limit", "bytes to transfer", amount(func(o *o) *Amount { return &o.IOSize })},
		{"filesize", "size, or range of sizes, of each file", func(o *o, v string, _ bool) (err error) {
			o.FileSize, err = span(v, o.KBBase)
			return err
		}},
		{"offset fileoffset", "where the job's region starts", amount(func(o *o) *Amount { return &o.Offset })},
		{"offset_align", "alignment of a percentage offset", bytes(func(o *o) *uint64 { return &o.OffsetAlign }, 0)},
		{"offset_increment", "offset added for each clone", amount(func(o *o) *Amount { return &o.OffsetIncrement })},
		{"number_ios", "how many I/Os to make", bytes(func(o *o) *uint64 { return &o.NumberIOs }, 0)},
		{"fill_device fill_fs", "write until there is no space left", flag(func(o *o) *bool { return &o.FillDevice })},
		{"file_append", "start at the end of the file", flag(func(o *o) *bool { return &o.FileAppend })},

		{"runtime timeout", "longest time to run", period(func(o *o) *time.Duration { return &o.Runtime }, time.Second)},
		{"time_based", "run for the whole runtime", flag(func(o *o) *bool { return &o.TimeBased })},
		{"ramp_time", "time to run before measuring", period(func(o *o) *time.Duration { return &o.RampTime }, time.Second)},
		{"ramp_size", "bytes to move before measuring", bytes(func(o *o) *uint64 { return &o.RampSize }, 1)},

		{"steadystate ss", "end when this is steady: iops, bw or lat, or its slope (iops_slope), then : and a limit, or a percentage of the mean", setSteady},
		{"steadystate_duration ss_dur", "over how long it has to be", period(func(o *o) *time.Duration { return &o.SteadyDuration }, time.Second)},
		{"steadystate_ramp_time ss_ramp", "how long to wait first", period(func(o *o) *time.Duration { return &o.SteadyRamp }, time.Second)},
		{"steadystate_check_interval ss_interval", "time between measurements", period(func(o *o) *time.Duration { return &o.SteadyInterval }, time.Second)},

		{"filename", "files, separated by :", text(func(o *o) *string { return &o.Filename })},
		{"directory", "directories, separated by :", text(func(o *o) *string { return &o.Directory })},
		{"filename_format", "how file names are made", text(func(o *o) *string { return &o.FilenameFormat })},
		{"unique_filename", "accepted: concerns fio's network clients only", flag(func(o *o) *bool { return &o.UniqueFilename })},
		{"nrfiles nr_files", "number of files", integer(func(o *o) *int { return &o.NrFiles }, 1, 1<<20)},
		{"openfiles", "how many of them are open at once", integer(func(o *o) *int { return &o.OpenFiles }, 1, 1<<20)},
		{"file_service_type", "how the next file is chosen", setFileService},
		{"fallocate", "how files are allocated", choice(func(o *o) *string { return &o.Fallocate },
			"none", "native", "posix", "keep", "truncate", "0>none", "1>posix")},
		{"create_serialize", "accepted: files are made one after another", flag(func(o *o) *bool { return &o.CreateSerialize })},
		{"create_fsync", "fsync files after making them", flag(func(o *o) *bool { return &o.CreateFsync })},
		{"create_on_open", "make files when they are opened for I/O", flag(func(o *o) *bool { return &o.CreateOnOpen })},
		{"allow_file_create", "may make files", flag(func(o *o) *bool { return &o.AllowCreate })},
		{"allow_mounted_write", "may write to a mounted block device", flag(func(o *o) *bool { return &o.AllowMounted })},
		{"unlink", "remove the files afterwards", flag(func(o *o) *bool { return &o.Unlink })},
		{"unlink_each_loop", "remove the files after each loop", flag(func(o *o) *bool { return &o.UnlinkEachLoop })},
		{"pre_read", "read the files into the page cache first", flag(func(o *o) *bool { return &o.PreRead })},
		{"invalidate", "drop the files from the page cache first", flag(func(o *o) *bool { return &o.Invalidate })},
		{"overwrite", "lay files out before writing to them", flag(func(o *o) *bool { return &o.Overwrite })},
		{"fsync", "fsync after so many writes", integer(func(o *o) *int { return &o.Fsync }, 0, maxInt)},
		{"fdatasync", "fdatasync after so many writes", integer(func(o *o) *int { return &o.Fdatasync }, 0, maxInt)},
		{"end_fsync", "fsync at the end", flag(func(o *o) *bool { return &o.EndFsync })},
		{"fsync_on_close", "fsync each file before closing it", flag(func(o *o) *bool { return &o.FsyncOnClose })},

		{"ioengine", "how I/O is made", text(func(o *o) *string { return &o.Engine })},
		{"direct", "bypass the page cache", flag(func(o *o) *bool { return &o.Direct })},
		{"buffered", "the opposite of direct", func(o *o, v string, bare bool) error {
			var b bool
			err := flag(func(*Options) *bool { return &b })(o, v, bare)
			o.Direct = !b
			return err
		}},
		{"sync", "open with none, sync or dsync", choice(func(o *o) *string { return &o.SyncIO }, "none", "0>none", "sync", "1>sync", "dsync")},
		{"iodepth", "how many I/Os are on the way at once", integer(func(o *o) *int { return &o.IODepth }, 1, 1<<16)},
		{"iodepth_batch iodepth_batch_submit", "how many are submitted together", integer(func(o *o) *int { return &o.DepthBatch }, 1, 1<<16)},
		{"iodepth_batch_complete_min iodepth_batch_complete", "how many to wait for at least", integer(func(o *o) *int { return &o.DepthCompleteMin }, 0, 1<<16)},
		{"iodepth_batch_complete_max", "how many to fetch at most", integer(func(o *o) *int { return &o.DepthCompleteMax }, 0, 1<<16)},
		{"iodepth_low", "refill when this few are left", integer(func(o *o) *int { return &o.DepthLow }, 0, 1<<16)},
		{"serialize_overlap", "never have two overlapping I/Os on the way", flag(func(o *o) *bool { return &o.Serialize })},
		{"io_submit_mode", "inline, or offload: workers make the I/O", choice(func(o *o) *string { return &o.SubmitMode }, "inline", "offload")},
		{"mem iomem", "where buffers live", choice(func(o *o) *string { return &o.Mem },
			"malloc", "shm>mmap", "mmap", "mmapshared", "mmaphuge", "shmhuge>mmaphuge")},
		{"iomem_align mem_align", "alignment of buffers", bytes(func(o *o) *uint64 { return &o.MemAlign }, 0)},
		{"hugepage-size", "size of a huge page", bytes(func(o *o) *uint64 { return &o.HugePage }, 4096)},
		{"lockmem", "bytes of memory to hold (mlock) while the job runs", bytes(func(o *o) *uint64 { return &o.LockMemory }, 0)},
		{"fadvise_hint", "what posix_fadvise is told", choice(func(o *o) *string { return &o.Fadvise }, "0", "1", "random", "sequential", "noreuse")},

		{"buffer_pattern", "what buffers hold", setPattern(func(o *o) **Pattern { return &o.BufferPattern }, false)},
		{"zero_buffers", "buffers hold zeros", flag(func(o *o) *bool { return &o.ZeroBuffers })},
		{"refill_buffers", "new random data for each I/O", flag(func(o *o) *bool { return &o.RefillBuffers })},
		{"scramble_buffers", "change a few bytes of the buffer for each I/O", flag(func(o *o) *bool { return &o.Scramble })},
		{"buffer_compress_percentage", "how well data can be compressed", integer(func(o *o) *int { return &o.Compress }, 0, 100)},
		{"buffer_compress_chunk", "size of the pieces of that", bytes(func(o *o) *uint64 { return &o.CompressChunk }, 1)},
		{"dedupe_percentage", "percentage of blocks that repeat an earlier one", integer(func(o *o) *int { return &o.Dedupe }, 0, 100)},

		{"random_distribution", "how random offsets spread", setDistribution},
		{"random_sequence_stride", "a sequence goes on behind itself instead of repeating", flag(func(o *o) *bool { return &o.SeqStride })},
		{"percentage_random", "percentage of the I/O that is random", intTriple(func(o *o) *Triple[int] { return &o.PercentRandom }, 0, 100)},
		{"norandommap", "random offsets may repeat", flag(func(o *o) *bool { return &o.NoRandomMap })},
		{"softrandommap", "go on without a map where it would be too large", flag(func(o *o) *bool { return &o.SoftRandomMap })},
		{"random_generator", "tausworthe, tausworthe64 or lfsr", choice(func(o *o) *string { return &o.Generator }, "tausworthe", "tausworthe64", "lfsr")},
		{"randseed", "seed of the random numbers", func(o *o, v string, _ bool) (err error) {
			o.Seed, err = size(v, o.KBBase)
			return err
		}},
		{"randrepeat allrandrepeat", "the same random numbers in each run", flag(func(o *o) *bool { return &o.RandRepeat })},

		{"rate", "bytes per second", byteTriple(func(o *o) *Triple[uint64] { return &o.Rate }, 0)},
		{"rate_min ratemin", "fail below this", byteTriple(func(o *o) *Triple[uint64] { return &o.RateMin }, 0)},
		{"rate_iops", "I/Os per second", byteTriple(func(o *o) *Triple[uint64] { return &o.RateIOPS }, 0)},
		{"rate_iops_min", "fail below this", byteTriple(func(o *o) *Triple[uint64] { return &o.RateIOPSMin }, 0)},
		{"rate_process", "linear or poisson", choice(func(o *o) *string { return &o.RateProcess }, "linear", "poisson")},
		{"rate_cycle ratecycle", "milliseconds over which rate_min is averaged", period(func(o *o) *time.Duration { return &o.RateCycle }, time.Millisecond)},
		{"rate_ignore_thinktime", "do not catch up after thinktime", flag(func(o *o) *bool { return &o.RateIgnoreThink })},
		{"thinktime", "microseconds of pause", period(func(o *o) *time.Duration { return &o.ThinkTime }, time.Microsecond)},
		{"thinktime_spin", "microseconds of that spent spinning", period(func(o *o) *time.Duration { return &o.ThinkSpin }, time.Microsecond)},
		{"thinktime_blocks", "I/Os between pauses", bytes(func(o *o) *uint64 { return &o.ThinkBlocks }, 1)},
		{"thinktime_blocks_type", "count completed or issued I/Os", func(o *o, v string, bare bool) error {
			var s string
			err := choice(func(*Options) *string { return &s }, "complete", "issue")(o, v, bare)
			o.ThinkBlocksIssued = s == "issue"
			return err
		}},
		{"thinktime_iotime", "time between pauses", period(func(o *o) *time.Duration { return &o.ThinkIOTime }, time.Second)},
		{"flow", "this job's share of its flow", integer(func(o *o) *int { return &o.Flow }, 0, 1000)},
		{"flow_id", "which flow", integer(func(o *o) *int { return &o.FlowID }, 0, maxInt)},
		{"flow_sleep", "microseconds to sleep when ahead of the flow", period(func(o *o) *time.Duration { return &o.FlowSleep }, time.Microsecond)},

		{"max_latency", "fail above this many microseconds", periodTriple(func(o *o) *Triple[time.Duration] { return &o.MaxLatency }, time.Microsecond)},
		{"latency_target", "find the depth that keeps below these microseconds", period(func(o *o) *time.Duration { return &o.LatencyTarget }, time.Microsecond)},
		{"latency_window", "microseconds over which latency_target is judged", period(func(o *o) *time.Duration { return &o.LatencyWindow }, time.Microsecond)},
		{"latency_percentile", "percentage of I/Os that must meet latency_target", func(o *o, v string, _ bool) error {
			var l []float64
			err := floats(func(*Options) *[]float64 { return &l }, 1)(o, v, false)
			if err == nil && (l[0] <= 0 || l[0] > 100) {
				err = fmt.Errorf("%s is outside 0 to 100", v)
			}
			if err == nil {
				o.LatencyPercentile = l[0]
			}
			return err
		}},
		{"latency_run", "keep adjusting the depth after it was found", flag(func(o *o) *bool { return &o.LatencyRun })},

		{"verify", "check of what was written", setVerify},
		{"do_verify", "read back what was written", flag(func(o *o) *bool { return &o.DoVerify })},
		{"verify_only", "check what an earlier run wrote", flag(func(o *o) *bool { return &o.VerifyOnly })},
		{"verify_interval", "bytes a header covers", bytes(func(o *o) *uint64 { return &o.VerifyInterval }, 80)},
		{"verify_offset", "where the header is inside its interval", bytes(func(o *o) *uint64 { return &o.VerifyOffset }, 40)},
		{"verify_pattern", "what the data is", setPattern(func(o *o) **Pattern { return &o.VerifyPattern }, true)},
		{"verify_fatal", "stop at the first mismatch", flag(func(o *o) *bool { return &o.VerifyFatal })},
		{"verify_async", "how many threads check blocks beside the job", integer(func(o *o) *int { return &o.VerifyAsync }, 0, 1024)},
		{"verify_async_cpus", "CPUs that these may run on", setCPUs(func(o *o) *[]int { return &o.VerifyAsyncCPUs })},
		{"verify_dump", "write mismatching blocks to files", flag(func(o *o) *bool { return &o.VerifyDump })},
		{"verify_backlog", "verify after so many writes", bytes(func(o *o) *uint64 { return &o.VerifyBacklog }, 0)},
		{"verify_backlog_batch", "how many blocks are verified then", bytes(func(o *o) *uint64 { return &o.VerifyBacklogBatch }, 0)},
		{"verify_write_sequence", "check the number of the write in the header", flag(func(o *o) *bool { return &o.VerifySequence })},
		{"verify_header_seed", "check the seed in the header", flag(func(o *o) *bool { return &o.VerifyHeaderSeed })},
		{"verify_state_save", "save how far was written when the job ends", flag(func(o *o) *bool { return &o.VerifyStateSave })},
		{"verify_state_load", "check only as far as the saved state says", flag(func(o *o) *bool { return &o.VerifyStateLoad })},
		{"experimental_verify", "accepted: the log of writes is kept in any case", flag(func(o *o) *bool { return &o.Experimental })},

		{"write_bw_log", "log of the bandwidth", setLog(func(o *o) **string { return &o.BWLog })},
		{"write_lat_log", "logs of the latencies", setLog(func(o *o) **string { return &o.LatLog })},
		{"write_iops_log", "log of the I/Os per second", setLog(func(o *o) **string { return &o.IOPSLog })},
		{"write_hist_log", "log of latency histograms", setLog(func(o *o) **string { return &o.HistLog })},
		{"write_iolog", "log of the I/O itself", text(func(o *o) *string { return &o.IOLog })},
		{"log_avg_msec", "average the logs over milliseconds", period(func(o *o) *time.Duration { return &o.LogAvg }, time.Millisecond)},
		{"log_hist_msec", "milliseconds between histograms", period(func(o *o) *time.Duration { return &o.LogHist }, time.Millisecond)},
		{"log_hist_coarseness", "0 to 6: halve the histogram's buckets so often", integer(func(o *o) *int { return &o.LogHistCoarseness }, 0, 6)},
		{"log_window_value log_max_value", "avg, max or both over log_avg_msec", choice(func(o *o) *string { return &o.LogWindow },
			"avg", "max", "both", "0>avg", "1>max")},
		{"log_offset", "a column for the offset", flag(func(o *o) *bool { return &o.LogOffset })},
		{"log_prio", "a column for the priority", flag(func(o *o) *bool { return &o.LogPrio })},
		{"log_issue_time", "a column for the time of the start", flag(func(o *o) *bool { return &o.LogIssueTime })},
		{"log_alternate_epoch log_unix_epoch", "times since 1970", flag(func(o *o) *bool { return &o.LogEpoch })},
		{"per_job_logs", "one log a job", flag(func(o *o) *bool { return &o.PerJobLogs })},
		{"bwavgtime", "milliseconds a bandwidth sample covers", period(func(o *o) *time.Duration { return &o.BWAvg }, time.Millisecond)},
		{"iopsavgtime", "milliseconds an IOPS sample covers", period(func(o *o) *time.Duration { return &o.IOPSAvg }, time.Millisecond)},

		{"clat_percentiles", "report percentiles of the completion latency", flag(func(o *o) *bool { return &o.ClatPercentiles })},
		{"lat_percentiles", "report percentiles of the whole latency", flag(func(o *o) *bool { return &o.LatPercentiles })},
		{"slat_percentiles", "report percentiles of the submission latency", flag(func(o *o) *bool { return &o.SlatPercentiles })},
		{"percentile_list", "which percentiles", floats(func(o *o) *[]float64 { return &o.Percentiles }, 20)},
		{"significant_figures", "digits in the report", integer(func(o *o) *int { return &o.SigFigs }, 1, 10)},
		{"disk_util", "report the disks", flag(func(o *o) *bool { return &o.DiskUtil })},
		{"gtod_reduce", "measure less: no latencies, no bandwidth samples", flag(func(o *o) *bool { return &o.GtodReduce })},
		{"disable_lat", "do not measure the whole latency", flag(func(o *o) *bool { return &o.NoLat })},
		{"disable_clat", "do not measure the completion latency", flag(func(o *o) *bool { return &o.NoClat })},
		{"disable_slat", "do not measure the submission latency", flag(func(o *o) *bool { return &o.NoSlat })},
		{"disable_bw_measurement disable_bw", "do not sample bandwidth and IOPS", flag(func(o *o) *bool { return &o.NoBW })},
		{"unified_rw_reporting", "add reads, writes and trims up: none or mixed", choice(func(o *o) *string { return &o.Unified },
			"none", "mixed", "0>none", "1>mixed")},
		{"kb_base", "1024 or 1000", func(o *o, v string, bare bool) error {
			var s string
			if err := choice(func(*Options) *string { return &s }, "1024", "1000")(o, v, bare); err != nil {
				return err
			}
			o.KBBase = map[string]uint64{"1024": 1024, "1000": 1000}[s]
			return nil
		}},
		{"unit_base", "8 for bytes, 1 for bits, 0 for the engine's choice", func(o *o, v string, bare bool) error {
			var s string
			err := choice(func(*Options) *string { return &s }, "0", "8", "1")(o, v, bare)
			o.UnitBase = map[string]int{"8": 8, "1": 1}[s]
			return err
		}},

		{"cpus_allowed", "CPUs the job may run on", setCPUs(func(o *o) *[]int { return &o.CPUs })},
		{"cpumask", "the same as a bit mask", setCPUMask},
		{"cpus_allowed_policy", "shared, or split: one CPU a job", choice(func(o *o) *string { return &o.CPUsPolicy }, "shared", "split")},
		{"nice", "-20 to 19", integer(func(o *o) *int { return &o.Nice }, -20, 19)},
		{"prio", "I/O priority 0 to 7", integer(func(o *o) *int { return &o.Prio }, 0, 7)},
		{"prioclass", "I/O priority class 0 to 3", integer(func(o *o) *int { return &o.PrioClass }, 0, 3)},

		{"hostname", "net: peer, or address to listen at; path of a unix socket", text(func(o *o) *string { return &o.Hostname })},
		{"port", "net: TCP port", integer(func(o *o) *int { return &o.Port }, 1, 65535)},
		{"protocol proto", "net: tcp, tcpv6 or unix", choice(func(o *o) *string { return &o.Protocol }, "tcp", "tcpv6", "unix")},
		{"listen", "net: wait for a connection instead of making one", flag(func(o *o) *bool { return &o.Listen })},
		{"nodelay", "net: TCP_NODELAY", flag(func(o *o) *bool { return &o.NoDelay })},
		{"pingpong", "net: answer each block", flag(func(o *o) *bool { return &o.PingPong })},
		{"interface", "net: device to bind to", text(func(o *o) *string { return &o.Interface })},
		{"window_size", "net: socket buffer", integer(func(o *o) *int { return &o.WindowSize }, 0, maxInt)},
		{"mss", "net: TCP_MAXSEG", integer(func(o *o) *int { return &o.MSS }, 0, 65535)},
	}
}

// lookup finds an option by any of its names.
func lookup(table []option, name string) *option {
	for i := range table {
		for n := range strings.FieldsSeq(table[i].names) {
			if n == name {
				return &table[i]
			}
		}
	}
	return nil
}

// Help lists the options, or the one named, for --cmdhelp.
func Help(name string) (string, bool) {
	var b strings.Builder
	for _, o := range options() {
		names := strings.Fields(o.names)
		if name != "all" && lookup([]option{o}, name) == nil {
			continue
		}
		fmt.Fprintf(&b, "%-24s %s", names[0], o.help)
		if len(names) > 1 {
			fmt.Fprintf(&b, " (also %s)", strings.Join(names[1:], ", "))
		}
		b.WriteString("\n")
	}
	return b.String(), b.Len() > 0
}
