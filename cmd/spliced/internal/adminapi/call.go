package adminapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"strconv"
	"time"

	"github.com/spliced-io/spliced/internal/nearest"
)

// A call is a request whose route was found.
type call struct {
	*http.Request
	api   *API
	vars  map[string]string // of the path
	query map[string]string
	body  any // a pointer, as the route has it; nil if it has none
	w     http.ResponseWriter
}

// readQuery takes the parameters that the route has, each once.
func (q *call) readQuery(route *route) *Error {
	values, err := url.ParseQuery(q.URL.RawQuery)
	if err != nil {
		return fault(BadParameter, "the query: %v", err)
	}
	q.query = make(map[string]string)
	names := make([]string, len(route.query))
	for i, p := range route.query {
		names[i] = p.name
		v := values[p.name]
		delete(values, p.name)
		if len(v) > 1 {
			return fault(BadParameter, "parameter %q is there twice", p.name)
		}
		if len(v) == 1 {
			q.query[p.name] = v[0]
		}
	}
	for name := range values {
		return fault(BadParameter, "there is no parameter %q here: %s", name, nearest.Want(name, names))
	}
	return nil
}

// readBody takes what the route wants; one that wants nothing takes nothing, or
// an object without keys.
func (q *call) readBody(route *route) *Error {
	text, err := io.ReadAll(http.MaxBytesReader(q.w, q.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return fault(BodyTooLarge, "the body has more than %d bytes", maxBody)
	case err != nil:
		return fault(BadBody, "the body: %v", err)
	}
	v := any(new(struct{}))
	if route.body != nil {
		q.body = reflect.New(reflect.TypeOf(route.body)).Interface()
		v = q.body
	}
	if len(text) == 0 {
		if route.body != nil {
			return fault(BadBody, "the body is empty: want %s", example(route.body))
		}
		return nil
	}
	if kind, _, err := mime.ParseMediaType(q.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return fault(NotJSON, "Content-Type %q: want application/json", q.Header.Get("Content-Type"))
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fault(BadBody, "the body: %v: want %s", err, example(route.body))
	}
	if _, err := d.Token(); err != io.EOF {
		return fault(BadBody, "the body: something comes after the JSON: want %s", example(route.body))
	}
	return nil
}

// example is JSON as it is wanted.
func example(body any) string {
	switch body.(type) {
	case Weight:
		return `{"weight": 10}`
	case LogLevel:
		return `{"level": "debug"}`
	}
	return "none"
}

// duration reads a parameter between two bounds.
func (q *call) duration(name string, otherwise, least, most time.Duration) (time.Duration, *Error) {
	text, ok := q.query[name]
	if !ok {
		return otherwise, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < least || d > most {
		return 0, fault(BadParameter, "%s %q: want a time from %v to %v, like %v", name, text, least, most, otherwise)
	}
	return d, nil
}

// number reads a parameter between two bounds.
func (q *call) number(name string, otherwise, least, most uint64) (uint64, *Error) {
	text, ok := q.query[name]
	if !ok {
		return otherwise, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n < least || n > most {
		return 0, fault(BadParameter, "%s %q: want a whole number from %d to %d", name, text, least, most)
	}
	return n, nil
}

// parseClient reads an address, one with a port, or a network.
func parseClient(text string) (p netip.Prefix, port uint16, err error) {
	if ap, err := netip.ParseAddrPort(text); err == nil {
		a := ap.Addr().Unmap().WithZone("")
		return netip.PrefixFrom(a, a.BitLen()), ap.Port(), nil
	}
	if a, err := netip.ParseAddr(text); err == nil {
		a = a.Unmap().WithZone("")
		return netip.PrefixFrom(a, a.BitLen()), 0, nil
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Masked(), 0, nil
	}
	return p, 0, fmt.Errorf("client %q: want an address (192.0.2.1), one with a port (192.0.2.1:1234), a network (192.0.2.0/24) or unix", text)
}
