package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/spliced-io/spliced/cmd/spliced/internal/adminapi"
	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/splice"
)

// metrics is the HTTP server behind --metrics.
type metrics struct {
	addr   string // really bound
	ln     net.Listener
	mux    *http.ServeMux
	server *http.Server
	done   chan struct{} // nil until it serves
}

// startMetrics is for the relay, whose clients its operator lets whoever can reach
// the address see. The daemon has an admin socket for that.
func startMetrics(ctx context.Context, addr proxy.Addr, relay *proxy.Server, counts ...prometheus.Collector) (*metrics, error) {
	ln, err := listenMetrics(ctx, addr)
	if err != nil {
		return nil, err
	}
	m := newMetrics(ln, relay, counts...)
	m.mux.HandleFunc("GET /connections", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(connections(relay)) // the reader may have gone
	})
	m.serve()
	return m, nil
}

func listenMetrics(ctx context.Context, addr proxy.Addr) (net.Listener, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, addr.Network, addr.Address)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return ln, nil
}

// newMetrics answers nobody before serve.
func newMetrics(ln net.Listener, relay *proxy.Server, counts ...prometheus.Collector) *metrics {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	registry.MustRegister(counts...)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if !relay.Accepting() {
			http.Error(w, "draining", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	m := &metrics{
		addr: ln.Addr().String(), ln: ln, mux: mux,
		server: &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, WriteTimeout: time.Minute, IdleTimeout: time.Minute},
	}
	inHall(m.server)
	return m
}

func (m *metrics) serve() {
	m.done = make(chan struct{})
	go func() {
		defer close(m.done)
		_ = m.server.Serve(newHall(m.ln)) // until stop
	}()
}

func (m *metrics) stop() {
	_ = m.server.Close()
	if m.done == nil {
		_ = m.ln.Close()
		return
	}
	<-m.done
}

// connections are the elements of /connections. See docs/relay.md.
func connections(relay *proxy.Server) []adminapi.Session {
	live := relay.Connections()
	list := make([]adminapi.Session, len(live))
	for i, c := range live {
		list[i] = adminapi.ViewSession(c)
	}
	return list
}

// collector reads the relay's counts when it is asked for them: counting costs
// a connection nothing.
type collector struct {
	relay  *proxy.Server
	events *events

	accepted, failed, open, joined, ended, bytes, spliced, held, info *prometheus.Desc
	wire                                                              wireDescs
}

// wireDescs are about the engine wire.
type wireDescs struct {
	flows, handedOver, returned, left, adopted, attempts, failed, refused, closed *prometheus.Desc
	bytes, packets, retransmits, errors, tooBig, late, lost                       *prometheus.Desc
}

func (d *wireDescs) all() []*prometheus.Desc {
	return []*prometheus.Desc{
		d.flows, d.handedOver, d.returned, d.left, d.adopted, d.attempts, d.failed, d.refused, d.closed,
		d.bytes, d.packets, d.retransmits, d.errors, d.tooBig, d.late, d.lost,
	}
}

func newCollector(relay *proxy.Server, e *events) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("spliced_"+name, help, labels, nil)
	}
	return &collector{
		relay: relay, events: e,
		accepted: desc("connections_accepted_total", "Clients accepted."),
		failed:   desc("connections_failed_total", "Clients that could be joined to no target."),
		open:     desc("connections_open", "Clients accepted whose connection has not ended."),
		joined:   desc("connections_joined", "Connections that are joined now."),
		ended:    desc("directions_ended_total", "Ended directions of connections, by reason.", "direction", "reason"),
		bytes:    desc("bytes_total", "Bytes delivered, those of live connections included.", "direction"),
		spliced:  desc("bytes_by_reference_total", "Of these, moved as page references.", "direction"),
		held:     desc("accept_held_total", "Times that new clients had to wait, for the limit of connections or for want of descriptors."),
		info:     desc("build_info", "1, with the version of this program.", "version"),
		wire: wireDescs{
			flows:       desc("wire_flows", "Connections that are spliced packet by packet now."),
			handedOver:  desc("wire_handed_over_total", "Connections that were handed over to wire."),
			returned:    desc("wire_returned_total", "Of these, taken back into sockets."),
			left:        desc("wire_left_total", "Of these, left to the next relay of the instance."),
			adopted:     desc("wire_adopted_total", "Connections that an earlier relay of the instance has left."),
			attempts:    desc("wire_attempts_total", "Hand-overs begun."),
			failed:      desc("wire_attempts_failed_total", "Of these, without success.", "reason"),
			refused:     desc("wire_refused_total", "Connections that were not handed over, or not for good.", "reason"),
			closed:      desc("wire_closed_seconds_total", "Time for which windows were closed to bring connections to rest."),
			bytes:       desc("wire_bytes_total", "Bytes of ended and live connections that wire has carried.", "direction"),
			packets:     desc("wire_packets_total", "Their packets.", "direction"),
			retransmits: desc("wire_retransmits_total", "Of these, starting in what was seen before.", "direction"),
			errors:      desc("wire_errors_total", "Of these, could not be translated and were dropped.", "direction"),
			tooBig:      desc("wire_too_big_total", "Packets that did not fit the interface that they were to leave by, dropped.", "direction"),
			late:        desc("wire_late_total", "Segments that reached a socket behind its hand-over: the sockets delivered them."),
			lost:        desc("wire_lost_total", "Connections that were reset at their hand-over, because their sides did not fit."),
		},
	}
}

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.accepted, c.failed, c.open, c.joined, c.ended, c.bytes, c.spliced, c.held, c.info} {
		ch <- d
	}
	for _, d := range c.wire.all() {
		ch <- d
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	const toTarget, toClient = "to_target", "to_client"
	s := c.relay.Stats()
	counter(c.accepted, float64(s.Accepted))
	counter(c.failed, float64(s.Failed))
	gauge(c.open, float64(s.Open))
	gauge(c.joined, float64(s.Joined))
	for r := range reasonCount {
		reason := splice.Reason(r)
		if reason == splice.Running {
			continue
		}
		counter(c.ended, float64(c.events.toTarget[r].Load()), toTarget, reason.String())
		counter(c.ended, float64(c.events.toClient[r].Load()), toClient, reason.String())
	}
	counter(c.bytes, float64(s.BytesToTarget), toTarget)
	counter(c.bytes, float64(s.BytesToClient), toClient)
	counter(c.spliced, float64(s.SplicedToTarget), toTarget)
	counter(c.spliced, float64(s.SplicedToClient), toClient)
	counter(c.held, float64(c.events.held.Load()))
	gauge(c.info, 1, version())
	w, d := &s.Wire, &c.wire
	gauge(d.flows, float64(w.Flows))
	counter(d.handedOver, float64(w.HandedOver))
	counter(d.returned, float64(w.Returned))
	counter(d.left, float64(w.Left))
	counter(d.adopted, float64(s.Adopted))
	counter(d.attempts, float64(w.Attempts))
	counter(d.failed, float64(w.Unseen), splice.WhyWireUnseen.String())
	counter(d.failed, float64(w.Failed-w.Unseen), splice.WhyWireBusy.String())
	for why, n := range w.Refused {
		if n > 0 {
			counter(d.refused, float64(n), splice.Why(why).String())
		}
	}
	counter(d.closed, w.Closed.Seconds())
	for i, direction := range []string{toTarget, toClient} {
		counter(d.bytes, float64(w.Bytes[i]), direction)
		counter(d.packets, float64(w.Packets[i]), direction)
		counter(d.retransmits, float64(w.Retransmits[i]), direction)
		counter(d.errors, float64(w.Errors[i]), direction)
		counter(d.tooBig, float64(w.TooBig[i]), direction)
	}
	counter(d.late, float64(w.Late))
	counter(d.lost, float64(w.Lost))
}
