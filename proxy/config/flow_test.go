package config

import (
	"strings"
	"testing"
)

// TestListsWithinBraces has addresses without quotes where the parser sees a key and a value.
func TestListsWithinBraces(t *testing.T) {
	const before = "listeners:\n  a: {address: [127.0.0.1:8000, localhost:8001], upstream: r}\nupstreams:\n  r: "
	tests := []struct {
		upstream string
		want     string // the servers, or what is said to be wrong
		wrong    bool
	}{
		{upstream: "{servers: [127.0.0.1:80]}", want: "127.0.0.1:80"},
		{upstream: "{servers: [db1.internal:5432, 10.0.0.2:81, {address: 10.0.0.3:82, weight: 2}]}", want: "db1.internal:5432 10.0.0.2:81 10.0.0.3:82"},
		{upstream: "{servers: [srv:_http._tcp.example.org, unix:/run/x.sock]}", want: "srv:_http._tcp.example.org unix:/run/x.sock"},
		{upstream: "{servers: 127.0.0.1:80, resolve: {servers: [127.0.0.53:53]}}", want: "127.0.0.1:80"},
		{upstream: "{servers: [address: 127.0.0.1:80]}", want: "127.0.0.1:80"},
		{upstream: `{servers: ["address":127.0.0.1:80]}`, want: "127.0.0.1:80"},
		{upstream: "{servers: [adress: 127.0.0.1:80]}", want: `:4:17: there is no key "adress" here`, wrong: true},
		{upstream: "{servers: [db1.internal:99999]}", want: `:4:17: address "db1.internal:99999"`, wrong: true},
	}
	for _, tt := range tests {
		t.Run(tt.upstream, func(t *testing.T) {
			f, err := Reader{ReadFile: func(string) ([]byte, error) { return []byte(before + tt.upstream + "\n"), nil }}.Load("x.yaml")
			if tt.wrong {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Fatalf("%v: want %q in it", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var servers []string
			for _, s := range f.Upstreams["r"].Servers {
				servers = append(servers, s.Address)
			}
			if got := strings.Join(servers, " "); got != tt.want {
				t.Errorf("servers %s: want %s", got, tt.want)
			}
		})
	}
}
