package job

import (
	"errors"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func parse(t *testing.T, files map[string]string) (*Set, error) {
	t.Helper()
	p := NewParser()
	p.getenv = func(name string) string { return map[string]string{"SIZE": "4m", "MODE": "randread"}[name] }
	p.open = func(name string) (io.ReadCloser, error) {
		text, ok := files[name]
		if !ok {
			return nil, os.ErrNotExist
		}
		return io.NopCloser(strings.NewReader(text)), nil
	}
	if err := p.File("main"); err != nil {
		return nil, err
	}
	return p.Set()
}

func one(t *testing.T, text string) Options {
	t.Helper()
	set, err := parse(t, map[string]string{"main": "[job]\n" + text + "\n"})
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return set.Jobs[0]
}

func TestGlobalsConcernTheJobsAfterThem(t *testing.T) {
	set, err := parse(t, map[string]string{"main": `
; a comment
# another
[global]
rw=${MODE}
size=${SIZE}
[a]
bs=8k   ; a comment after a value
stonewall
[global]
ioengine=null
include more
[b]
size=1g
`, "more": "numjobs=3\n"})
	if err != nil {
		t.Fatal(err)
	}
	a, b := set.Jobs[0], set.Jobs[1]
	if len(set.Jobs) != 2 || a.Name != "a" || a.RW != "randread" || a.Size.Bytes != 4<<20 || a.BS[Write] != (Span{8192, 8192}) || !a.Stonewall ||
		a.Engine != "psync" || a.NumJobs != 1 {
		t.Errorf("a is %+v", a)
	}
	if b.Engine != "null" || b.NumJobs != 3 || b.Size.Bytes != 1<<30 || b.Stonewall || b.RW != "randread" {
		t.Errorf("b is %+v", b)
	}
	want := "fio --name=global --rw=randread --size=4m --name=a --bs=8k --stonewall --name=global --ioengine=null --numjobs=3 --name=b --size=1g"
	if got := set.Command(); got != want {
		t.Errorf("as a command:\n%s\nwant\n%s", got, want)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]uint64{
		"size=1k": 1024, "size=1K": 1024, "size=1kb": 1024, "size=1ki": 1000, "size=1KiB": 1000, "size=2m": 2 << 20,
		"size=1g": 1 << 30, "size=1t": 1 << 40, "size=1p": 1 << 50, "size=0x10": 16, "size=512": 512,
		"kb_base=1000\nsize=1k": 1000, "size=1k\nkb_base=1000": 1000, "kb_base=1000\nsize=1ki": 1024,
		"size=(4*1024)": 4096, "size=(1m+512)": 1<<20 + 512, "size=(2^10)k": 1 << 20, "size=8*$ncpus/$ncpus": 8,
		"size=(10%4)": 2, "size=(1-(2-3))": 2, "size=9007199254740993": 9007199254740993,
	} {
		if o := one(t, text); o.Size.Bytes != want {
			t.Errorf("%s is %d, want %d", text, o.Size.Bytes, want)
		}
	}
	if o := one(t, "size=50%"); o.Size.Percent != 50 {
		t.Errorf("size=50%% is %+v", o.Size)
	}
}

func TestTimes(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"runtime=3": 3 * time.Second, "runtime=3m": 3 * time.Minute, "runtime=2h": 2 * time.Hour, "runtime=1d": 24 * time.Hour,
		"runtime=30ms": 30 * time.Millisecond, "runtime=7us": 7 * time.Microsecond, "runtime=01:02:03": 3723 * time.Second,
		"runtime=(2*1s)": 2 * time.Second,
	} {
		if o := one(t, text); o.Runtime != want {
			t.Errorf("%s is %v, want %v", text, o.Runtime, want)
		}
	}
	if o := one(t, "thinktime=5"); o.ThinkTime != 5*time.Microsecond {
		t.Errorf("thinktime=5 is %v", o.ThinkTime)
	}
	if o := one(t, "latency_target=2ms"); o.LatencyTarget != 2*time.Millisecond {
		t.Errorf("latency_target=2ms is %v", o.LatencyTarget)
	}
}

func TestPerDirection(t *testing.T) {
	if o := one(t, "bs=4k,8k,16k"); o.BS != (Triple[Span]{{4096, 4096}, {8192, 8192}, {16384, 16384}}) {
		t.Errorf("bs is %+v", o.BS)
	}
	if o := one(t, "bs=,8k"); o.BS != (Triple[Span]{{4096, 4096}, {8192, 8192}, {8192, 8192}}) {
		t.Errorf("bs is %+v", o.BS)
	}
	if o := one(t, "rate=,500k"); o.Rate != (Triple[uint64]{0, 500 << 10, 500 << 10}) {
		t.Errorf("rate is %+v", o.Rate)
	}
	if o := one(t, "bsrange=8k-1k,2k:4k"); o.BS[Read] != (Span{1024, 8192}) || o.BS[Write] != (Span{2048, 4096}) {
		t.Errorf("bsrange is %+v", o.BS)
	}
	if o := one(t, "bssplit=4k/10:64k/:32k/40"); !reflect.DeepEqual(o.BSSplit[Read], []Share{{4096, 10}, {65536, 50}, {32768, 40}}) {
		t.Errorf("bssplit is %+v", o.BSSplit[Read])
	}
	if o := one(t, "rw=read:512k"); o.RW != "read" || o.RWSkip != 512<<10 {
		t.Errorf("rw is %s skip %d", o.RW, o.RWSkip)
	}
	if o := one(t, "rw=randwrite:8"); o.RWCount != 8 {
		t.Errorf("rw count %d", o.RWCount)
	}
	if o := one(t, "random_distribution=zoned:60/10:30/20:8/30:2/40"); len(o.Dist.Zones[Write]) != 4 {
		t.Errorf("zones are %+v", o.Dist)
	}
}

func TestPatterns(t *testing.T) {
	for text, want := range map[string]string{
		`0xdeadface`: "\xde\xad\xfa\xce", `"abcd"`: "abcd", `0xabc`: "\x0a\xbc", `-12`: "\xf4\xff\xff\xff", `300`: "\x2c\x01",
		`"abcd"-120xdeadface`: "abcd\xf4\xff\xff\xff\xde\xad\xfa\xce", `0`: "\x00",
	} {
		p, err := pattern(text, false)
		if err != nil || string(p.Bytes) != want {
			t.Errorf("%s is %x, %v, want %x", text, p.Bytes, err, want)
		}
	}
	p, err := pattern(`0xff%o"ab"`, true)
	if err != nil || len(p.Bytes) != 11 || !reflect.DeepEqual(p.At, []int{1}) {
		t.Errorf("%+v, %v", p, err)
	}
	for _, bad := range []string{"", `"abc`, `'x`, "0x", "zz", "99999999999", `'no such file'`} {
		if _, err := pattern(bad, true); err == nil {
			t.Errorf("%q was taken for a pattern", bad)
		}
	}
}

// What is wrong is named: job, option and what would be right.
func TestErrorsNameTheOption(t *testing.T) {
	for text, want := range map[string][]string{
		"zonemode=zbd":           {"zonemode", "fio has this option"},
		"cmdprio_class=1":        {"cmdprio_class", "fio has this option"},
		"bsz=4k":                 {"bsz", "unknown option", "did you mean bs?"},
		"size=99999999999t":      {"size=99999999999t", "too large"},
		"size=1q":                {"size=1q", "suffix"},
		"bs=0":                   {"bs=0", "outside"},
		"bs=-4k":                 {"bs=-4k"},
		"rw=blub":                {"rw=blub", "randread"},
		"iodepth=0":              {"iodepth=0", "outside"},
		"numjobs=1000000":        {"numjobs", "outside"},
		"rwmixread=101":          {"rwmixread=101"},
		"size":                   {"size", "no number"},
		"rw":                     {"rw", "none of"},
		"size=(1/0)":             {"division by zero"},
		"verify=pattern":         {"verify_pattern"},
		"direct=maybe":           {"direct=maybe", "neither 0 nor 1"},
		"bssplit=4k/60:8k/5":     {"bssplit", "add up"},
		"time_based":             {"runtime"},
		"bs=512m\niodepth=60000": {"iodepth"},
	} {
		_, err := parse(t, map[string]string{"main": "[j]\n" + text + "\n"})
		if err == nil {
			t.Errorf("%q was accepted", text)
			continue
		}
		var e *Error
		if !errors.As(err, &e) || e.Job != "j" {
			t.Errorf("%q: %v does not name the job", text, err)
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q: %v does not mention %q", text, err, w)
			}
		}
	}
}

// A file that is no job file at all neither fills the terminal nor controls it.
func TestErrorsAreOfOneShortLine(t *testing.T) {
	junk := strings.Repeat("\x1b[2J\xff\x07junk", 500)
	for _, text := range []string{"[" + junk, junk, "[j]\n" + junk, "[j]\n" + junk + "=1", "[j]\nsize=" + junk} {
		_, err := parse(t, map[string]string{"main": text})
		if err == nil {
			t.Fatalf("%.20q was accepted", text)
		}
		if got := err.Error(); len(got) > 1500 || strings.ContainsAny(got, "\x1b\x07\n") || !utf8.ValidString(got) {
			t.Errorf("%.20q: %d bytes: %.300q", text, len(got), got)
		}
	}
}

func TestBadFiles(t *testing.T) {
	loop := map[string]string{"main": "[j]\ninclude main\n"}
	long := map[string]string{"main": "[j]\n" + strings.Repeat("x", maxLineBytes+1) + "\n"}
	for name, files := range map[string]map[string]string{
		"missing":             {},
		"include loop":        loop,
		"missing include":     {"main": "[j]\ninclude nothing\n"},
		"sections in include": {"main": "[j]\ninclude x\n", "x": "[k]\n"},
		"long line":           long,
		"no section":          {"main": "size=1\n"},
		"open section":        {"main": "[j\n"},
		"binary":              {"main": "[j]\n\x00\x01\n"},
		"huge":                {"main": "[j]\n" + strings.Repeat("; comment\n", maxFileBytes/10+1)},
		"many sections":       {"main": strings.Repeat("[j]\n", maxSections+1)},
	} {
		if _, err := parse(t, files); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestALongLineIsNamed(t *testing.T) {
	_, err := parse(t, map[string]string{"main": "[j]\n" + strings.Repeat("x", maxLineBytes+1) + "\n"})
	if want := "main:2: line longer than 65536 bytes"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// What fio 3.33 takes, its manual aside.
func TestOddLines(t *testing.T) {
	set, err := parse(t, map[string]string{
		"main": "[global]\ninclude=inc\ninclude\tinc2 # why\n[a]\nsize=64k;tail\ndescription=a#b\n",
		"inc":  "bs=8k#x\n", "inc2": "numjobs=3\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	if o := set.Jobs[0]; o.Size.Bytes != 64<<10 || o.Description != "a" || o.BS[Read].Max != 8<<10 || o.NumJobs != 3 {
		t.Errorf("%+v", o)
	}
	for _, text := range []string{"direct=2", "invalidate=-1"} {
		if _, err := parse(t, map[string]string{"main": "[a]\nsize=4k\n" + text + "\n"}); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
}

func TestOnlySections(t *testing.T) {
	p := NewParser()
	p.Only("b")
	if err := p.Read("x", strings.NewReader("[global]\nsize=1k\n[a]\nbogus=1\n[b]\nsize=2k\n")); err != nil {
		t.Fatal(err)
	}
	set, err := p.Set()
	if err != nil || len(set.Jobs) != 1 || set.Jobs[0].Name != "b" {
		t.Errorf("%+v, %v", set, err)
	}
}

// Every option of the table is one that fio has, and shows up in the help.
func TestTableIsFios(t *testing.T) {
	seen := map[string]bool{}
	for _, o := range options() {
		for n := range strings.FieldsSeq(o.names) {
			if !known(n) && n != "readwrite" {
				t.Errorf("%s is no option of fio", n)
			}
			if seen[n] {
				t.Errorf("%s is there twice", n)
			}
			seen[n] = true
			if text, ok := Help(n); !ok || text == "" {
				t.Errorf("no help for %s", n)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"[global]\nrw=randrw:8\nbs=4k-8k,16k\n[a]\nsize=(1k*(2+3))\nverify=md5\nverify_pattern=0xff%o\"a\"-12\n",
		"[a]\nbssplit=4k/10:64k/50:32k/40\nrandom_distribution=zipf:1.2:0.5\nruntime=1:2:3\n",
		"[a]\nrandom_distribution=zoned_abs:50/4k:50/1m\nsize=$mb_memory*2\nfilename=${HOME}\nstonewall\n",
		"[a]\nsize=10%\nrate=,1m\nignore_error=EIO:5,ENOSPC\nlog_avg_msec=100\ncpus_allowed=0-3,5\npercentile_list=1:99.9\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p := NewParser()
		p.getenv = func(string) string { return "1" }
		p.open = func(string) (io.ReadCloser, error) { return nil, os.ErrNotExist }
		if err := p.Read("fuzz", strings.NewReader(text)); err != nil {
			return
		}
		set, err := p.Set()
		if err != nil {
			return
		}
		for _, o := range set.Jobs {
			for dir, bs := range o.BS {
				if bs.Min == 0 || bs.Min > bs.Max || bs.Max > maxBlock {
					t.Errorf("direction %d has block sizes %+v", dir, bs)
				}
			}
			if o.IODepth < 1 || o.NumJobs < 1 || o.Loops < 1 || o.Runtime < 0 || o.MixRead < 0 || o.MixRead > 100 {
				t.Errorf("impossible options %+v", o)
			}
		}
		// What is printed as a command line says the same again.
		if got := set.Command(); !strings.HasPrefix(got, "fio") || strings.Contains(got, "\n") {
			t.Errorf("a command of several lines: %q", got)
		}
	})
}

// Each option with any value: an error, or options that validate has accepted.
func FuzzOption(f *testing.F) {
	for _, s := range [][2]string{
		{"bssplit", "4k/10:64k/50:32k/40,8k"},
		{"random_distribution", "zoned:50/5:30/15:20/"},
		{"random_distribution", "sequence:1,2"},
		{"buffer_pattern", "\"abcd\"-120xdeadface"},
		{"verify_pattern", "0xff%o\"x\"-12"},
		{"startdelay", "1:2:3-5m"},
		{"size", "(1k*(2+3)^2%7)m"},
		{"file_service_type", "zipf:1.2"},
		{"ignore_error", "EIO:5,ENOSPC"},
		{"cpumask", "0x5"},
		{"steadystate", "iops_slope:0.3%"},
		{"rw", "randrw:8"},
		{"offset_increment", "10%"},
		{"rate", ",,1m"},
		{"percentile_list", "1:99.9"},
		{"runtime", "1d2h"},
		{"iodepth", "0x10"},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		p := NewParser()
		p.getenv = func(string) string { return "1" }
		if p.Add(Setting{Name: "rw", Value: "randrw"}) != nil || p.Add(Setting{Name: "size", Value: "1m"}) != nil {
			t.Fatal("the fuzz test's own options are refused")
		}
		if p.Begin("j") != nil || p.Add(Setting{Name: name, Value: value}) != nil {
			return
		}
		set, err := p.Set()
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Job != "j" && e.Job != value {
				t.Errorf("an error that does not name its job: %v", err)
			}
			return
		}
		o := set.Jobs[0]
		if o.DepthCompleteMax < 1 || o.DepthCompleteMax > o.IODepth || o.DepthLow < 1 || o.OpenFiles < 1 || o.StartDelay[0] > o.StartDelay[1] ||
			o.Size.Percent < 0 || o.FileSize.Min > o.FileSize.Max || o.Runtime < 0 || o.RampTime < 0 || o.ThinkTime < 0 {
			t.Errorf("%s=%s: impossible options %+v", name, value, o)
		}
		for dir, shares := range o.BSSplit {
			sum := 0
			for _, s := range shares {
				sum += s.Percent
			}
			if len(shares) > 0 && sum != 100 {
				t.Errorf("direction %d: shares of %d %%", dir, sum)
			}
		}
	})
}
