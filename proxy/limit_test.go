package proxy

import "testing"

func TestConnsIn(t *testing.T) {
	for files, want := range map[uint64]int{
		0: 1, 3: 1, 50: 1, 70: 8, 1024: 366, 20000: 9464, 1 << 20: 523752, 1<<64 - 1: 1<<30 - 1,
	} {
		if got := connsIn(files, ownFiles); got != want {
			t.Errorf("connsIn(%d) = %d, want %d", files, got, want)
		}
	}
}

func TestFilesOfConfig(t *testing.T) {
	c := &Config{
		Listeners: map[string]Listener{"a": {Address: []string{"x", "y"}}, "b": {Address: []string{"z"}}},
		Upstreams: map[string]Upstream{
			"checked": {Servers: Targets("1", "2", "3", "4"), Health: &Health{}},
			"not":     {Servers: Targets("5", "6")},
		},
	}
	if got, want := c.files(), uint64(ownFiles+3+4); got != want {
		t.Errorf("%d descriptors, want %d", got, want)
	}
}
