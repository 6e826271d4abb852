package nearest

import "testing"

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
