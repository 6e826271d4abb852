package netbench

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestSockmapOptionsAreValidated(t *testing.T) {
	for _, test := range []struct {
		change func(*SockmapOptions)
		want   string // in the error; "": none
	}{
		{func(*SockmapOptions) {}, ""},
		{func(o *SockmapOptions) { o.Modes = nil }, "no mode"},
		{func(o *SockmapOptions) { o.Modes = []string{"rx-fast"} }, `mode "rx-fast": want one of rx-normal`},
		{func(o *SockmapOptions) { o.Modes = []string{"rx-pass", "rx-pass"} }, "twice"},
		{func(o *SockmapOptions) { o.Consumers = nil }, "no consumer"},
		{func(o *SockmapOptions) { o.Consumers = []string{"mmap"} }, `consumer "mmap": want one of read, splice`},
		{func(o *SockmapOptions) { o.Rounds = 0 }, "rounds 0"},
		{func(o *SockmapOptions) { o.Duration = 0 }, "duration 0s"},
		{func(o *SockmapOptions) { o.Warmup = -1 }, "warm-up"},
		{func(o *SockmapOptions) { o.Size = 0 }, "size 0"},
		{func(o *SockmapOptions) { o.Size = MaxSize + 1 }, "size"},
		{func(o *SockmapOptions) { o.Delay = -1 }, "delay"},
		{func(o *SockmapOptions) { o.Delay = time.Hour }, "delay"},
		{func(o *SockmapOptions) { o.MaxQueued = 0 }, "max-queued 0: want 1 MiB"},
		{func(o *SockmapOptions) { o.Parse = -1 }, "strp -1"},
		{func(o *SockmapOptions) { o.Parse = 4096 }, ParsersAllowed + "=1"},
		{func(o *SockmapOptions) { o.Parse, o.AllowParsers, o.Modes = 4096, true, []string{"tx-pass"} }, "belongs to the modes rx-pass"},
		{func(o *SockmapOptions) { o.Parse, o.AllowParsers = 4096, true }, ""},
	} {
		o := DefaultSockmapOptions()
		test.change(&o)
		err := o.Validate()
		if test.want == "" {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		var usage *UsageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("error %v, want one with %q", err, test.want)
		}
	}
}

// sockmapFile is a run with one figure.
func sockmapFile(throughput float64, change func(*Config)) *File {
	o := DefaultSockmapOptions()
	f := &File{Schema: SchemaVersion, Tool: "test", Config: o.config()}
	fig := NewFigure([]float64{throughput, throughput, throughput, throughput, throughput})
	f.Results = []Result{
		{Path: "rx-pass", Workload: WorkloadSockmapRead, Streams: 1, Size: o.Size, Rounds: 5, Throughput: fig, ReceiverCPU: fig, Queued: fig},
		{Path: "rx-pass", Workload: WorkloadSockmapSplice, Streams: 1, Size: o.Size, Missing: "this kernel can't"},
	}
	if change != nil {
		change(&f.Config)
	}
	return f
}

// Every format of bench net knows the results of bench sockmap.
func TestSockmapFormats(t *testing.T) {
	f := sockmapFile(2e9, nil)
	var b bytes.Buffer
	if err := WriteJSON(&b, f); err != nil {
		t.Fatal(err)
	}
	back, err := Decode(&b)
	if err != nil {
		t.Fatal(err)
	}
	if back.Config.MaxQueuedBytes != f.Config.MaxQueuedBytes || back.Results[0].ReceiverCPU.Median != 2e9 {
		t.Errorf("comes back as %+v", back)
	}
	for name, write := range map[string]func(*bytes.Buffer) error{
		"table":     func(b *bytes.Buffer) error { return WriteTable(b, back) },
		"html":      func(b *bytes.Buffer) error { return WriteHTML(b, back) },
		"markdown":  func(b *bytes.Buffer) error { return WriteMarkdown(b, back) },
		"benchstat": func(b *bytes.Buffer) error { return WriteBenchstat(b, back) },
	} {
		b.Reset()
		if err := write(&b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		want := []string{"rx-pass", "sockmap-read", "sockmap-splice", "this kernel can"}
		switch name {
		case "markdown":
			want = []string{"rx-pass", "consumed by read", "consumed by splice", "this kernel can"}
		case "benchstat":
			want = []string{"BenchmarkNet/workload=sockmap-read/path=rx-pass/streams=1/size=131072-", "receiver-cpu-s/GB", "queued-B"}
		}
		for _, w := range want {
			if !strings.Contains(b.String(), w) {
				t.Errorf("%s has no %q:\n%s", name, w, b.String())
			}
		}
	}
}

// Runs that queue differently are not compared.
func TestSockmapDiff(t *testing.T) {
	fast, slow := sockmapFile(2e9, nil), sockmapFile(1e9, nil)
	if _, n := Diff(fast, slow, 0.05); n == 0 {
		t.Error("half the throughput is no regression")
	}
	for name, change := range map[string]func(*Config){
		"stream parser":    func(c *Config) { c.ParseBytes = 4096 },
		"consumer delayed": func(c *Config) { c.DelayS = 1 },
		"queued":           func(c *Config) { c.MaxQueuedBytes++ },
	} {
		report, n := Diff(fast, sockmapFile(1e9, change), 0.05)
		if n != 0 || len(report.Rows) != 0 || !strings.Contains(strings.Join(report.Missing, "\n"), name) {
			t.Errorf("%s: %d regressions, %+v", name, n, report)
		}
	}
}
