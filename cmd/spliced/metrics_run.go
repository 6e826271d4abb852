package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/splice"
)

// runCollector reads what the server knows of its listeners and servers when it
// is asked for it. The metrics are a contract: see docs/run.md.
type runCollector struct {
	server *proxy.Server
	descs  []*prometheus.Desc

	accepted, failures, open, joined, bytes, ended, engines, refusals, connect, duration *prometheus.Desc

	queued, state, weight, active, connections, connectFailures, resets, checks, serverBytes *prometheus.Desc
}

func newRunCollector(server *proxy.Server) *runCollector {
	c := &runCollector{server: server}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		d := prometheus.NewDesc("spliced_"+name, help, labels, nil)
		c.descs = append(c.descs, d)
		return d
	}
	c.accepted = desc("listener_accepted_total", "Clients accepted.", "listener")
	c.failures = desc("listener_failures_total", "Clients that were not joined, by reason.", "listener", "reason")
	c.open = desc("listener_open", "Clients accepted whose connection has not ended.", "listener")
	c.joined = desc("listener_joined", "Connections joined now, by what carries them.", "listener", "engine")
	c.bytes = desc("listener_bytes_total", "Bytes delivered, by what has.", "listener", "direction", "engine")
	c.ended = desc("listener_directions_ended_total", "Ended directions of connections, by reason.", "listener", "direction", "reason")
	c.engines = desc("listener_engines_total", "Ended connections, by what has carried them last and why.", "listener", "engine", "reason")
	c.refusals = desc("listener_engine_refusals_total", "Ended connections that could not have this engine, by reason.", "listener", "engine", "reason")
	c.connect = desc("listener_connect_seconds", "From accepting a client to its server's answer.", "listener")
	c.duration = desc("listener_duration_seconds", "From accepting to the end, of joined connections.", "listener")
	c.queued = desc("upstream_queued", "Clients that wait for a server with room.", "upstream")
	c.state = desc("server_state", "1 for the state of the server, 0 for the others.", "upstream", "server", "state")
	c.weight = desc("server_weight", "The server's share.", "upstream", "server")
	c.active = desc("server_active", "Connections, those being made included.", "upstream", "server")
	c.connections = desc("server_connections_total", "Connects that have worked.", "upstream", "server")
	c.connectFailures = desc("server_connect_failures_total", "Connects that have failed, by reason.", "upstream", "server", "reason")
	c.resets = desc("server_early_resets_total", "Connections that the server has reset before its first byte.", "upstream", "server")
	c.checks = desc("server_checks_total", "Health checks, by result.", "upstream", "server", "result")
	c.serverBytes = desc("server_bytes_total", "Bytes delivered.", "upstream", "server", "direction")
	return c
}

// Describe is asked once.
func (c *runCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// The values of the label direction.
const (
	directionToTarget = "to_target"
	directionToClient = "to_client"
)

// Collect is asked for every reading.
func (c *runCollector) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	survey := c.server.Survey()
	for _, l := range survey.Listeners {
		counter(c.accepted, l.Accepted, l.Name)
		gauge(c.open, l.Open, l.Name)
		for reason, n := range l.Failures {
			counter(c.failures, n, l.Name, string(reason))
		}
		for _, engine := range []splice.Engine{splice.EngineCopy, splice.EngineSplice, splice.EngineSockmap, splice.EngineWire} {
			name := engine.String()
			gauge(c.joined, l.Account.Joined[engine], l.Name, name)
			carried := l.Carried[engine]
			counter(c.bytes, uint64(carried.ToServer), l.Name, directionToTarget, name)
			counter(c.bytes, uint64(carried.ToClient), l.Name, directionToClient, name)
		}
		for key, n := range l.Ends {
			direction := directionToTarget
			if key.ToClient {
				direction = directionToClient
			}
			counter(c.ended, n, l.Name, direction, key.Reason.String())
		}
		for key, n := range l.Engines {
			counter(c.engines, n, l.Name, key.Engine.String(), key.Why.String())
		}
		for key, n := range l.Refusals {
			counter(c.refusals, n, l.Name, key.Engine.String(), key.Why.String())
		}
		ch <- histogram(c.connect, &l.Connect, proxy.ConnectBounds(), l.Name)
		ch <- histogram(c.duration, &l.Duration, proxy.DurationBounds(), l.Name)
	}
	for _, u := range survey.Upstreams {
		gauge(c.queued, u.Queued, u.Name)
		for _, s := range u.Servers {
			for _, state := range []proxy.ServerState{proxy.ServerUp, proxy.ServerUnchecked, proxy.ServerDown, proxy.ServerEjected, proxy.ServerDraining} {
				is := 0
				if s.State == state {
					is = 1
				}
				gauge(c.state, is, u.Name, s.Name, string(state))
			}
			gauge(c.weight, s.Weight, u.Name, s.Name)
			gauge(c.active, s.Active, u.Name, s.Name)
			counter(c.connections, s.Connected, u.Name, s.Name)
			for reason, n := range s.ConnectFailures {
				counter(c.connectFailures, n, u.Name, s.Name, string(reason))
			}
			counter(c.resets, s.EarlyResets, u.Name, s.Name)
			counter(c.checks, s.Checks-s.ChecksFailed, u.Name, s.Name, "pass")
			counter(c.checks, s.ChecksFailed, u.Name, s.Name, "fail")
			counter(c.serverBytes, uint64(s.BytesToServer), u.Name, s.Name, directionToTarget)
			counter(c.serverBytes, uint64(s.BytesToClient), u.Name, s.Name, directionToClient)
		}
	}
}

func histogram(d *prometheus.Desc, h *proxy.Histogram, bounds []time.Duration, labels ...string) prometheus.Metric {
	buckets := make(map[float64]uint64, len(bounds))
	var n uint64
	for i, bound := range bounds {
		if h.Counts != nil {
			n += h.Counts[i]
		}
		buckets[bound.Seconds()] = n
	}
	return prometheus.MustNewConstHistogram(d, h.Observations(), h.Sum.Seconds(), buckets, labels...)
}
