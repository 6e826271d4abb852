package adminapi

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// guard says why a request may not be answered. Who has the token may ask from
// anywhere, but not by a page of another site. Without one it is asked for by a name of
// this machine only, or a page that has made its own name mean 127.0.0.1 (DNS
// rebinding) would be answered: also by a unix socket, which ssh -L may have given a
// port.
func (a *API) guard(r *http.Request) *Error {
	if token := a.secret(); token != "" {
		if isAPI(r.URL.Path) && !bears(r, token) {
			return fault(Unauthorized, "want the header Authorization: Bearer and the token of admin.token_file")
		}
	} else if !isLocalHost(r.Host) {
		return fault(ForbiddenHost, "Host %q: want localhost or 127.0.0.1, or a token by admin.token_file", r.Host)
	}
	if foreign(r) {
		return fault(CrossOrigin, "a page of another site (%s) may not ask here", cmpOr(r.Header.Get("Origin"), r.Header.Get("Referer"), "unnamed"))
	}
	return nil
}

func cmpOr(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return ""
}

func isAPI(path string) bool { return path == "/v1" || strings.HasPrefix(path, "/v1/") }

// bears says whether r has the token. How long it takes does not depend on where
// they differ, or on how long they are.
func bears(r *http.Request, token string) bool {
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	want, have := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(strings.TrimSpace(given)))
	return subtle.ConstantTimeCompare(want[:], have[:]) == 1
}

// isLocalHost says whether a Host means this machine, whatever a name server
// says.
func isLocalHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"), ".")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// foreign says whether a browser asks for a page of another site. One that follows
// a link to our own page may.
func foreign(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return false
	case "": // an old browser, or none
	default:
		return isAPI(r.URL.Path) || !isRead(r.Method)
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	u, err := url.Parse(origin)
	return err != nil || u.Host == "" || !strings.EqualFold(u.Host, r.Host)
}
