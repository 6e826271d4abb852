package nearest

import (
	"slices"
	"testing"
)

func TestWant(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		word  string
		words []string
		want  string
	}{
		{"wbe", []string{"api", "web"}, `did you mean "web"?`},
		{"upstrem", []string{"address", "upstream"}, `did you mean "upstream"?`},
		{"colour", []string{"address", "upstream"}, "want one of address, upstream"},
		{"127.0.0.1:81", []string{"127.0.0.1:80", "10.0.0.1:80"}, `did you mean "127.0.0.1:80"?`},
		{"x", []string{"web"}, "want web"},
		{"", []string{"web"}, "want web"},
		{"x", nil, "there is none"},
	} {
		if got := Want(tc.word, tc.words); got != tc.want {
			t.Errorf("%q of %q: %q, want %q", tc.word, tc.words, got, tc.want)
		}
	}
}

func TestSome(t *testing.T) {
	t.Parallel()
	words := []string{"database", "web", "web2", "api"}
	if got := Some("wbe", words, 2); !slices.Equal(got, []string{"web", "web2"}) {
		t.Errorf("got %q", got)
	}
	if got := Some("x", nil, 2); len(got) != 0 {
		t.Errorf("got %q of nothing", got)
	}
}
