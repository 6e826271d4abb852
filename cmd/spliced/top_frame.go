package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spliced-io/spliced/cmd/spliced/internal/adminapi"
)

// A frame is what spliced top shows at a time.
type frame struct {
	last, now     *adminapi.Snapshot // last may be nil
	sort          string
	width, height int    // of the terminal; 0: no limit
	note          string // the last line; "": none
}

// A frameLine is one of a frame.
type frameLine struct {
	text string
	head bool // of a table
}

// topSorts are the orders of sessions, in the order in which a key goes through
// them.
var topSorts = []string{"rate", "bytes", "age", "idle", "id"}

// lines returns at most height lines of at most width characters.
func (f *frame) lines() []frameLine {
	all := f.summary()
	room := f.height
	if f.note != "" {
		room--
	}
	listeners, servers, sessions := f.listeners(), f.servers(), f.sessions()
	if f.height > 0 {
		// A third each for listeners and servers, what is left for sessions; a line
		// before each.
		third := (room - len(all) - 3) / 3
		listeners, servers = clipTable(listeners, third), clipTable(servers, third)
	}
	for _, table := range [][]frameLine{listeners, servers, sessions} {
		all = append(append(all, frameLine{}), table...)
	}
	if f.height > 0 && len(all) > room {
		all = all[:max(0, room)]
	}
	if f.note != "" {
		for len(all) < room {
			all = append(all, frameLine{})
		}
		all = append(all, frameLine{text: f.note})
	}
	if f.width > 0 {
		for i := range all {
			all[i].text = clipText(all[i].text, f.width)
		}
	}
	return all
}

// clipTable shortens a table to n lines, its head and a row at least, and says by
// how much where there is room for that.
func clipTable(table []frameLine, n int) []frameLine {
	if n = max(n, 2); len(table) <= n {
		return table
	}
	if n == 2 {
		return table[:2]
	}
	keep := n - 1
	return append(slices.Clone(table[:keep]), frameLine{text: fmt.Sprintf("... and %d lines more", len(table)-keep)})
}

func clipText(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width])
}

// table aligns what write writes; the first line is the head.
func frameTable(write func(io.Writer)) []frameLine {
	var b bytes.Buffer
	t := newTable(&b)
	write(t)
	t.Flush()
	var lines []frameLine
	for line := range strings.Lines(b.String()) {
		lines = append(lines, frameLine{strings.TrimRight(line, " \n"), len(lines) == 0})
	}
	return lines
}

func (f *frame) summary() []frameLine {
	s := &f.now.Status
	r := ratesOf(f.last, f.now)
	lines := []frameLine{
		{text: fmt.Sprintf("spliced %s  process %d  up %s  %s  %s", plain(s.Version), s.PID, ageText(time.Duration(s.UptimeS*float64(time.Second))), s.State, f.now.Time.Local().Format(time.TimeOnly)), head: true},
		{text: fmt.Sprintf("open %d of %d  joined %d  accepted %.0f/s  not joined %.0f/s  to targets %s/s  to clients %s/s", s.Open, s.MaxOpen, s.Joined, r.accepted, r.failed, bytesText(r.toTarget), bytesText(r.toClient))},
	}
	if s.Reload != nil && !s.Reload.OK {
		first, _, _ := strings.Cut(s.Reload.Error, "\n")
		lines = append(lines, frameLine{text: fmt.Sprintf("reload REFUSED at %s: %s", s.Reload.Time.Local().Format(time.TimeOnly), plain(first))})
	}
	return lines
}

func (f *frame) listeners() []frameLine {
	return frameTable(func(w io.Writer) {
		fmt.Fprintln(w, "LISTENER\tENGINE\tSESSIONS\tNEW/S\tNOT JOINED/S\tTO TARGETS/S\tTO CLIENTS/S")
		for i := range f.now.Listeners {
			l := &f.now.Listeners[i]
			before := f.listenerBefore(l.Name)
			var r rates
			if before != nil {
				r = between(&before.Counts, &l.Counts, elapsed(f.last, f.now))
			}
			fmt.Fprintf(w, "%s\tall\t%d\t%.0f\t%.0f\t%s\t%s\n", plain(l.Name), l.Joined, r.accepted, r.failed, bytesText(r.toTarget), bytesText(r.toClient))
			for k := range l.Engines {
				e := &l.Engines[k]
				var toTarget, toClient float64
				if before != nil {
					if j := slices.IndexFunc(before.Engines, func(o adminapi.EngineUse) bool { return o.Engine == e.Engine }); j >= 0 {
						b := &before.Engines[j]
						toTarget, toClient = rise(b.BytesToTarget, e.BytesToTarget, elapsed(f.last, f.now)), rise(b.BytesToClient, e.BytesToClient, elapsed(f.last, f.now))
					}
				}
				if e.Joined > 0 || toTarget > 0 || toClient > 0 {
					fmt.Fprintf(w, "\t%s\t%d\t\t\t%s\t%s\n", e.Engine, e.Joined, bytesText(toTarget), bytesText(toClient))
				}
			}
		}
	})
}

func (f *frame) listenerBefore(name string) *adminapi.Listener {
	if !sameProcess(f.last, f.now) {
		return nil
	}
	for i := range f.last.Listeners {
		if f.last.Listeners[i].Name == name {
			return &f.last.Listeners[i]
		}
	}
	return nil
}

// servers are those first that are not up.
func (f *frame) servers() []frameLine {
	type row struct {
		upstream string
		s        *adminapi.Server
	}
	var rows []row
	queued := make(map[string]int)
	for i := range f.now.Upstreams {
		u := &f.now.Upstreams[i]
		queued[u.Name] = u.Queued
		for k := range u.Servers {
			rows = append(rows, row{u.Name, &u.Servers[k]})
		}
	}
	used := func(s *adminapi.Server) int {
		if s.State == "up" || s.State == "unchecked" {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(rows, func(a, b row) int { return cmp.Compare(used(a.s), used(b.s)) })
	return frameTable(func(w io.Writer) {
		fmt.Fprintln(w, "UPSTREAM\tSERVER\tSTATE\tWEIGHT\tACTIVE\tQUEUE\tNEW/S\tFAILED/S\tTO TARGET/S\tTO CLIENT/S\tNOTE")
		for _, r := range rows {
			var before *adminapi.Server
			if sameProcess(f.last, f.now) {
				before = find(&adminapi.Upstreams{Upstreams: f.last.Upstreams}, r.upstream, r.s.Name)
			}
			if before == nil {
				before = r.s
			}
			var seconds float64
			if f.last != nil {
				seconds = elapsed(f.last, f.now)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%.0f\t%.0f\t%s\t%s\t%s\n", plain(r.upstream), plain(r.s.Name), r.s.State, weightText(r.s), r.s.Active, queued[r.upstream],
				rise(before.Connected, r.s.Connected, seconds), rise(before.ConnectFailed, r.s.ConnectFailed, seconds),
				bytesText(rise(before.BytesToTarget, r.s.BytesToTarget, seconds)), bytesText(rise(before.BytesToClient, r.s.BytesToClient, seconds)), orDash(serverNote(r.s)))
		}
		for _, u := range f.now.Upstreams {
			for _, n := range u.Unresolved {
				fmt.Fprintf(w, "%s\t%s\tunresolved\t\t\t\t\t\t\t\t%s\n", plain(u.Name), plain(n.Name), plain(n.Error))
			}
		}
	})
}

func (f *frame) sessions() []frameLine {
	list := slices.Clone(f.now.Sessions)
	slices.SortStableFunc(list, func(a, b adminapi.BusySession) int {
		switch f.sort {
		case "bytes":
			return cmp.Compare(b.BytesToTarget+b.BytesToClient, a.BytesToTarget+a.BytesToClient)
		case "age":
			return a.Started.Compare(b.Started)
		case "idle":
			return a.LastProgress.Compare(b.LastProgress)
		case "id":
			return cmp.Compare(a.ID, b.ID)
		}
		return cmp.Compare(b.RateToTarget+b.RateToClient, a.RateToTarget+a.RateToClient)
	})
	return frameTable(func(w io.Writer) {
		fmt.Fprintln(w, "SESSION\tLISTENER\tCLIENT\tSERVER\tENGINE\tAGE\tIDLE\tTO TARGET/S\tTO CLIENT/S\tBYTES\tSNI")
		for i := range list {
			s := &list[i]
			fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.ID, plain(s.Listener), plain(s.Client), plain(s.Server), s.Engine,
				ageText(f.now.Time.Sub(s.Started)), ageText(f.now.Time.Sub(s.LastProgress)), bytesText(s.RateToTarget), bytesText(s.RateToClient),
				bytesText(float64(s.BytesToTarget+s.BytesToClient)), orDash(s.SNI))
		}
	})
}
