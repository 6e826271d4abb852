package adminpage

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func get(t *testing.T, path string) *httptest.ResponseRecorder {
	t.Helper()
	page := Pages()[path]
	if page == nil {
		t.Fatalf("no page %s", path)
	}
	w := httptest.NewRecorder()
	page.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	for path, kind := range map[string]string{
		"/": "text/html; charset=utf-8", "/page.css": "text/css; charset=utf-8",
		"/page.js": "text/javascript; charset=utf-8", "/icon.svg": "image/svg+xml",
	} {
		w := get(t, path)
		if got := w.Header().Get("Content-Type"); w.Code != http.StatusOK || got != kind || w.Body.Len() == 0 {
			t.Errorf("%s: status %d, type %s, %d bytes", path, w.Code, got, w.Body.Len())
		}
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", path, name, got, want)
			}
		}
		rules := strings.Split(w.Header().Get("Content-Security-Policy"), "; ")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'", "require-trusted-types-for 'script'"} {
			if !slices.Contains(rules, want) {
				t.Errorf("%s: the policy has no %s: %q", path, want, rules)
			}
		}
		if policy := strings.Join(rules, " "); strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") || strings.Contains(policy, "http") {
			t.Errorf("%s: the policy is lax: %s", path, policy)
		}
	}
}

// The page is made of what is embedded, and its script makes text, never markup.
func TestSelfContained(t *testing.T) {
	t.Parallel()
	html, script, style := get(t, "/").Body.String(), get(t, "/page.js").Body.String(), get(t, "/page.css").Body.String()
	var named []string
	for _, m := range regexp.MustCompile(`(?:src|href)="([^"#][^"]*)"`).FindAllStringSubmatch(html, -1) {
		named = append(named, "/"+m[1])
		if Pages()["/"+m[1]] == nil {
			t.Errorf("index.html names %s, which there is not", m[1])
		}
	}
	if len(named) != len(Pages())-1 {
		t.Errorf("index.html names %q of %d files", named, len(Pages()))
	}
	for name, tc := range map[string]struct{ text, never string }{
		"index.html": {html, `(?i)<style|\bstyle=|\son[a-z]+=|javascript:|https?:|<script[^>]*>[^<]`},
		"page.css":   {style, `(?i)url\(|@import|expression`},
		"page.js":    {script, `innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|createContextualFragment|DOMParser|srcdoc|setHTML|localStorage|\bimport\b|https?://(?:[^w]|w[^w])`},
	} {
		if m := regexp.MustCompile(tc.never).FindString(tc.text); m != "" {
			t.Errorf("%s has %q", name, m)
		}
	}
	// Whatever the script looks for is there, once.
	for _, m := range regexp.MustCompile(`\$\("([a-z-]+)"\)`).FindAllStringSubmatch(script, -1) {
		if n := strings.Count(html, `id="`+m[1]+`"`); n != 1 {
			t.Errorf("page.js wants the element %s, of which there are %d", m[1], n)
		}
	}
}
