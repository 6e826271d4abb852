// Package adminpage is the page of the admin API, for people with a browser: a
// client of /v1/watch and its neighbours like any other. It is static, needs
// nothing from elsewhere, and is served to who has no token yet: nothing of it is
// secret.
package adminpage

import (
	"embed"
	"net/http"
)

//go:embed index.html page.css page.js icon.svg
var files embed.FS

// policy lets the page load its own files and ask its own daemon, and nothing else.
// A text that was made markup by mistake could do nothing, and browsers with trusted
// types refuse to make it.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Pages returns what answers GET, by path.
func Pages() map[string]http.Handler {
	return map[string]http.Handler{
		"/":         file("index.html", "text/html; charset=utf-8"),
		"/page.css": file("page.css", "text/css; charset=utf-8"),
		"/page.js":  file("page.js", "text/javascript; charset=utf-8"),
		"/icon.svg": file("icon.svg", "image/svg+xml"),
	}
}

func file(name, kind string) http.Handler {
	content, err := files.ReadFile(name)
	if err != nil {
		panic(err) // it is embedded
	}
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", kind)
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY") // for browsers that don't know frame-ancestors
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store") // an upgrade may bring another page
		_, _ = w.Write(content)            // the reader may have gone
	})
}
