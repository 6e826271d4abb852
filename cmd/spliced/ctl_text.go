package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spliced-io/spliced/cmd/spliced/internal/adminapi"
)

func newTable(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 8, 2, ' ', 0) }

func printStatus(w io.Writer, s *adminapi.Status) {
	fmt.Fprintf(w, "spliced %s, process %d, up %s, %s\n", plain(s.Version), s.PID, ageText(time.Duration(s.UptimeS*float64(time.Second))), s.State)
	fmt.Fprintf(w, "configuration %s, %d files, read %s\n", plain(s.Config.Path), len(s.Config.Files), s.Config.Loaded.Local().Format(time.DateTime))
	for _, f := range s.Config.Files {
		fmt.Fprintf(w, "  %s  %s\n", f.SHA256, plain(f.Path))
	}
	switch r := s.Reload; {
	case r == nil:
	case r.OK:
		fmt.Fprintf(w, "reloaded %s\n", r.Time.Local().Format(time.DateTime))
	default:
		fmt.Fprintf(w, "reload REFUSED %s, the old configuration is in force:\n", r.Time.Local().Format(time.DateTime))
		for line := range strings.Lines(r.Error) {
			fmt.Fprintf(w, "  %s\n", plain(strings.TrimSuffix(line, "\n")))
		}
	}
	fmt.Fprintf(w, "log level %s\n", s.LogLevel)
	fmt.Fprintf(w, "clients: %d open of %d, %d joined; %d accepted, %d not joined, %d ended; held back %d times\n",
		s.Open, s.MaxOpen, s.Joined, s.Accepted, s.Failed, s.Ended, s.Held)
	fmt.Fprintf(w, "bytes: %s to targets, %s to clients; of these by reference %s and %s\n",
		bytesText(float64(s.BytesToTarget)), bytesText(float64(s.BytesToClient)), bytesText(float64(s.SplicedToTarget)), bytesText(float64(s.SplicedToClient)))
}

func printListeners(w io.Writer, v *adminapi.Listeners) {
	t := newTable(w)
	defer t.Flush()
	fmt.Fprintln(t, "LISTENER\tADDRESS\tOPEN\tJOINED\tACCEPTED\tNOT JOINED\tTO TARGETS\tTO CLIENTS\tENGINES\tWHY NOT JOINED")
	for _, l := range v.Listeners {
		var carried []string
		for _, e := range l.Engines {
			if e.Joined > 0 {
				carried = append(carried, fmt.Sprintf("%s %d", e.Engine, e.Joined))
			}
		}
		var failures []string
		for _, reason := range slices.Sorted(maps.Keys(l.Failures)) {
			failures = append(failures, fmt.Sprintf("%s %d", reason, l.Failures[reason]))
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%s\n", plain(l.Name), plain(strings.Join(l.Addresses, ",")), l.Open, l.Joined, l.Accepted, l.Failed,
			bytesText(float64(l.BytesToTarget)), bytesText(float64(l.BytesToClient)), orDash(strings.Join(carried, ", ")), orDash(strings.Join(failures, ", ")))
	}
}

const serverColumns = "SERVER\tSTATE\tWEIGHT\tACTIVE\tCONNECTED\tFAILED\tTO TARGET\tTO CLIENT\tNOTE"

func printUpstreams(w io.Writer, v *adminapi.Upstreams) {
	t := newTable(w)
	defer t.Flush()
	fmt.Fprintln(t, "UPSTREAM\t"+serverColumns)
	for _, u := range v.Upstreams {
		for i := range u.Servers {
			fmt.Fprintf(t, "%s\t%s\n", plain(u.Name), serverRow(&u.Servers[i]))
		}
		for _, n := range u.Unresolved {
			fmt.Fprintf(t, "%s\t%s\tunresolved\t\t\t\t\t\t\t%s\n", plain(u.Name), plain(n.Name), plain(n.Error))
		}
		if u.Queued > 0 {
			fmt.Fprintf(t, "%s\t\t\t\t\t\t\t\t\t%d of %d clients wait for a server\n", plain(u.Name), u.Queued, u.MaxQueue)
		}
	}
}

func printServer(w io.Writer, s *adminapi.Server) {
	t := newTable(w)
	defer t.Flush()
	fmt.Fprintf(t, "%s\n%s\n", serverColumns, serverRow(s))
}

func serverRow(s *adminapi.Server) string {
	active := fmt.Sprint(s.Active)
	if s.MaxActive > 0 {
		active += fmt.Sprintf("/%d", s.MaxActive)
	}
	return fmt.Sprintf("%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s", plain(s.Name), s.State, weightText(s), active, s.Connected, s.ConnectFailed,
		bytesText(float64(s.BytesToTarget)), bytesText(float64(s.BytesToClient)), orDash(serverNote(s)))
}

func weightText(s *adminapi.Server) string {
	if s.Weight != s.ConfiguredWeight {
		return fmt.Sprintf("%d (%d)", s.Weight, s.ConfiguredWeight)
	}
	return fmt.Sprint(s.Weight)
}

// serverNote is what a server's state does not say.
func serverNote(s *adminapi.Server) string {
	var notes []string
	if s.Backup {
		notes = append(notes, "backup")
	}
	if s.Down && s.State != "down" {
		notes = append(notes, "down")
	}
	if s.Ejected && s.State != "ejected" {
		notes = append(notes, "ejected")
	}
	if s.EjectedUntil != nil {
		notes = append(notes, "until "+s.EjectedUntil.Local().Format(time.TimeOnly))
	}
	if s.Error != "" && (s.Down || s.Ejected) {
		notes = append(notes, s.Error)
	}
	return strings.Join(notes, ", ")
}

func printSessions(w io.Writer, v *adminapi.Sessions) {
	t := newTable(w)
	fmt.Fprintln(t, "ID\tLISTENER\tCLIENT\tUPSTREAM\tSERVER\tENGINE\tAGE\tIDLE\tTO TARGET\tTO CLIENT\tSNI")
	now := time.Now()
	for i := range v.Sessions {
		s := &v.Sessions[i]
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.ID, plain(s.Listener), plain(s.Client), orDash(s.Upstream), plain(s.Server), s.Engine,
			ageText(now.Sub(s.Started)), ageText(now.Sub(s.LastProgress)), bytesText(float64(s.BytesToTarget)), bytesText(float64(s.BytesToClient)), orDash(s.SNI))
	}
	t.Flush()
	if v.Next > 0 {
		fmt.Fprintf(w, "there are more: --limit 0 lists all\n")
	}
}

func printSession(w io.Writer, s *adminapi.Session) {
	t := newTable(w)
	defer t.Flush()
	now := time.Now()
	row := func(key, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\n", key, plain(fmt.Sprintf(format, args...)))
	}
	row("session", "%d", s.ID)
	row("client", "%s", s.Client)
	row("listener", "%s, route %s", s.Listener, s.Route)
	row("server", "%s of upstream %s", s.Server, s.Upstream)
	row("target", "%s, from %s", s.Target, orDash(s.Local))
	row("sni", "%s", orDash(s.SNI))
	row("engine", "%s (%s)", s.Engine, s.EngineReason)
	row("started", "%s, %s ago", s.Started.Local().Format(time.DateTime), ageText(now.Sub(s.Started)))
	row("idle for", "%s", ageText(now.Sub(s.LastProgress)))
	row("to target", "%s, %s by reference, %s", bytesText(float64(s.BytesToTarget)), bytesText(float64(s.SplicedToTarget)), s.EndToTarget)
	row("to client", "%s, %s by reference, %s", bytesText(float64(s.BytesToClient)), bytesText(float64(s.SplicedToClient)), s.EndToClient)
	if v := s.Wire; v != nil {
		row("wire", "handed over %v, returned %v, %d attempts, refused: %s", v.HandedOver, v.Returned, v.Attempts, orDash(v.Refused))
	}
}

// watchLine is a snapshot in a line; the first has no rates.
func watchLine(last, now *adminapi.Snapshot) string {
	r := ratesOf(last, now)
	up, all := 0, 0
	for _, u := range now.Upstreams {
		for _, s := range u.Servers {
			all++
			if s.State == "up" || s.State == "unchecked" {
				up++
			}
		}
	}
	return fmt.Sprintf("%s  %s  open %d  accepted %.0f/s  not joined %.0f/s  to targets %s/s  to clients %s/s  servers %d/%d",
		now.Time.Local().Format(time.TimeOnly), now.Status.State, now.Status.Open, r.accepted, r.failed, bytesText(r.toTarget), bytesText(r.toClient), up, all)
}
