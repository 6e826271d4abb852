package wire

import (
	"reflect"
	"testing"
	"unsafe"

	"github.com/spliced-io/spliced/internal/bpf"
)

// The name of the layout changes with whatever changes in the pinned maps.
func TestLayoutOf(t *testing.T) {
	type a struct {
		X uint32
		Y [2]int64
	}
	type renamed struct {
		Z uint32
		Y [2]int64
	}
	type longer struct {
		X uint32
		Y [3]int64
	}
	type swapped struct {
		Y [2]int64
		X uint32
	}
	type inner struct{ A a }
	names := make(map[string]string)
	for name, is := range map[string]string{
		"one":     layoutOf(1, reflect.TypeFor[a]()),
		"two":     layoutOf(2, reflect.TypeFor[a]()),
		"renamed": layoutOf(1, reflect.TypeFor[renamed]()),
		"longer":  layoutOf(1, reflect.TypeFor[longer]()),
		"swapped": layoutOf(1, reflect.TypeFor[swapped]()),
		"inner":   layoutOf(1, reflect.TypeFor[inner]()),
	} {
		if other := names[is]; other != "" {
			t.Errorf("%s and %s have one name", name, other)
		}
		names[is] = name
	}
	if again := layoutOf(1, reflect.TypeFor[a]()); names[again] != "one" {
		t.Error("a layout has two names")
	}
}

// What later versions rely on.
func TestPrefix(t *testing.T) {
	var f bpf.WireFlow
	if unsafe.Offsetof(f.State) != 4 || unsafe.Offsetof(f.Verdict) != 8 || unsafe.Offsetof(f.Over) != 12 || unsafe.Offsetof(f.LastSeen) != 16 {
		t.Error("the beginning of an entry has moved")
	}
	if unsafe.Sizeof(bpf.WireKey{}) != 36 {
		t.Error("keys have changed")
	}
}
