package netbench

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestReadFileGivesBackWhatWasWritten(t *testing.T) {
	t.Parallel()
	want := sampleRun()
	name := filepath.Join(t.TempDir(), "run.json")
	if err := os.WriteFile(name, mustJSON(t, want), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Error("the file differs from what was written")
	}
	if _, err := ReadFile(name + ".none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestDecodeAllowsNewKeys(t *testing.T) {
	t.Parallel()
	f, err := Decode(strings.NewReader(`{"schema":1,"of_tomorrow":{},"results":[{"path":"p","workload":"w","also":1}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Results) != 1 || f.Results[0].Path != "p" {
		t.Errorf("results: %+v", f.Results)
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	result := func(s string) string { return `{"schema":1,"results":[` + s + `]}` }
	for name, tc := range map[string]struct{ in, want string }{
		"nothing":          {"", "empty"},
		"not JSON":         {"BenchmarkNet 1", "not the JSON"},
		"an array":         {"[]", "not the JSON"},
		"null":             {"null", "schema"},
		"no schema":        {`{"results":[]}`, "schema"},
		"newer schema":     {`{"schema":2,"results":"other"}`, "schema 2, but this program reads 1"},
		"schema as text":   {`{"schema":"1"}`, "not the JSON"},
		"cut off":          {`{"schema":1,"results":[`, "not the JSON"},
		"something behind": {`{"schema":1} {}`, "not the JSON"},
		"no results":       {`{"schema":1}`, "no results"},
		"wrong type":       {`{"schema":1,"results":{}}`, "not the JSON"},
		"no path":          {result(`{"workload":"bulk"}`), "no path"},
		"no workload":      {result(`{"path":"direct"}`), "no workload"},
		"negative":         {result(`{"path":"p","workload":"w","streams":-1}`), "negative"},
		"twice":            {result(`{"path":"p","workload":"w"},{"path":"p","workload":"w"}`), "twice"},
		"median outside": {
			result(`{"path":"p","workload":"w","throughput_bytes_per_s":{"median":3,"min":1,"max":2,"samples":[1,2]}}`),
			"throughput_bytes_per_s: median 3",
		},
		"sample outside": {
			result(`{"path":"p","workload":"w","fds_per_pair":{"median":1,"min":1,"max":2,"samples":[1,9]}}`),
			"sample 9",
		},
		"median of others": {
			result(`{"path":"p","workload":"w","throughput_bytes_per_s":{"median":2,"min":1,"max":9,"samples":[1,8,9]}}`),
			"throughput_bytes_per_s: median 2, but that of the samples is 8",
		},
		"least of others": {
			result(`{"path":"p","workload":"w","throughput_bytes_per_s":{"median":8,"min":1,"max":9,"samples":[7,8,9]}}`),
			"throughput_bytes_per_s: least 1, but that of the samples is 7",
		},
		"percentile beyond 100": {
			result(`{"path":"p","workload":"rr","latency_us":{"curve":[{"percentile":101,"us":1}]}}`),
			"curve",
		},
		"number beyond all": {
			result(`{"path":"p","workload":"w","fds_per_pair":{"median":1e999,"min":1,"max":2,"samples":[1]}}`),
			"not the JSON",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, err := Decode(strings.NewReader(tc.in))
			if err == nil {
				t.Fatalf("accepted: %+v", f)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q does not say %q", err, tc.want)
			}
		})
	}
}

func TestDecodeBoundsWhatItReads(t *testing.T) {
	t.Parallel()
	_, err := Decode(io.MultiReader(strings.NewReader(`{"schema":1}`), io.LimitReader(spaces{}, maxFileBytes)))
	if err == nil || !strings.Contains(err.Error(), "longer") {
		t.Errorf("a file beyond the limit: %v", err)
	}
}

// FuzzDecode holds that whatever is read can be reported, in all forms, and is
// the same after another round through JSON.
func FuzzDecode(f *testing.F) {
	small := sampleRun()
	small.Config.Paths = small.Config.Paths[:3]
	for _, r := range small.Results {
		one := *small
		one.Results = []Result{r}
		data, err := json.Marshal(&one)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, seed := range []string{
		``, `null`, `{"schema":1}`, `{"schema":2}`,
		`{"schema":1,"results":[{"path":"\u0000<&","workload":"\u001b[31m","error":"]]>"}]}`,
		`{"schema":1,"config":{"paths":["a","a",""]},"results":[{"path":"b","workload":"rr","latency_us":{"p50":{"median":1e-320,"min":0,"max":1e308,"samples":[1]},"curve":[{"percentile":100,"us":0},{"percentile":0,"us":1e308}]}}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Decode(bytes.NewReader(data))
		if err != nil {
			return
		}
		again, err := Decode(bytes.NewReader(mustJSON(t, file)))
		if err != nil {
			t.Fatalf("reading what was written from what was read: %v", err)
		}
		if a, b := mustJSON(t, file), mustJSON(t, again); !bytes.Equal(a, b) {
			t.Fatalf("changed by reading it again:\n%s\n%s", a, b)
		}
		var page, text bytes.Buffer
		if err := WriteHTML(&page, file); err != nil {
			t.Fatal(err)
		}
		if _, err := parseXML(page.Bytes()); err != nil {
			t.Fatalf("page: %v", err)
		}
		for _, g := range groupsOf(file) {
			for _, c := range g.charts() {
				if _, err := parseXML([]byte(chartSVG(c, "c", g.heading(c), true))); err != nil {
					t.Fatalf("chart: %v", err)
				}
			}
		}
		for _, write := range []func(io.Writer, *File) error{WriteTable, WriteMarkdown, WriteBenchstat} {
			if err := write(&text, file); err != nil {
				t.Fatal(err)
			}
		}
		if bytes.ContainsRune(text.Bytes(), '\x1b') {
			t.Fatal("an escape sequence reached the output")
		}
		report, regressions := Diff(file, again, 0)
		if regressions != 0 {
			t.Fatalf("a run is worse than itself: %+v", report.Rows)
		}
		if err := report.Write(&text); err != nil {
			t.Fatal(err)
		}
	})
}

// spaces is an endless blank.
type spaces struct{}

func (spaces) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = ' '
	}
	return len(b), nil
}

func mustJSON(t testing.TB, f *File) []byte {
	t.Helper()
	data, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// element is an element of a page or a drawing.
type element struct {
	name     string
	attrs    map[string]string
	inner    strings.Builder
	children []*element
}

// parseXML reads a whole document and fails on the slightest error.
func parseXML(data []byte) (*element, error) {
	d := xml.NewDecoder(bytes.NewReader(data))
	root := &element{}
	stack := []*element{root}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return root, nil
		}
		if err != nil {
			return nil, err
		}
		top := stack[len(stack)-1]
		switch token := token.(type) {
		case xml.StartElement:
			e := &element{name: token.Name.Local, attrs: map[string]string{}}
			for _, a := range token.Attr {
				e.attrs[a.Name.Local] = a.Value
			}
			top.children = append(top.children, e)
			stack = append(stack, e)
		case xml.EndElement:
			stack = stack[:len(stack)-1]
		case xml.CharData:
			for _, e := range stack {
				e.inner.Write(token)
			}
		}
	}
}

// text returns all text in e.
func (e *element) text() string { return e.inner.String() }

// all returns the elements in e, of that name and with all these classes.
func (e *element) all(name string, classes ...string) []*element {
	var found []*element
	for _, c := range e.children {
		if (name == "" || c.name == name) && hasClasses(c, classes) {
			found = append(found, c)
		}
		found = append(found, c.all(name, classes...)...)
	}
	return found
}

func hasClasses(e *element, classes []string) bool {
	has := strings.Fields(e.attrs["class"])
	for _, want := range classes {
		found := false
		for _, h := range has {
			found = found || h == want
		}
		if !found {
			return false
		}
	}
	return true
}
