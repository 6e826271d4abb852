package main

import (
	"time"

	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/sys"
	"github.com/spliced-io/spliced/proxy"
)

func wireInstances(root string) ([]string, error) { return wire.Instances(root) }

func purgeWire(root, name string) error { return wire.Purge(wire.Config{Root: root, Instance: name}) }

// wireFlows calls f for each flow of an instance, until it fails.
func wireFlows(root, name string, f func(*flowView) error) error {
	table, err := wire.OpenTable(wire.Config{Root: root, Instance: name})
	if err != nil {
		return err
	}
	defer table.Close()
	flows, err := table.Flows()
	if err != nil {
		return err
	}
	for _, flow := range flows {
		v, err := flow.Look()
		if err != nil {
			continue // it has just ended
		}
		if v.Ended {
			continue // nobody has heard of it yet
		}
		now, seen := sys.Monotonic(), int64(max(v.Flows[0].LastSeen, v.Flows[1].LastSeen))
		if v.LastMoved == 0 {
			v.LastMoved = seen
		}
		view := flowView{
			Instance: name, Started: time.Unix(0, flow.Meta.Started),
			Idle:          time.Duration(now - v.LastMoved),
			LastSeen:      time.Duration(now - seen),
			Closed:        time.Duration(flow.Meta.Closed),
			BytesToTarget: flow.Meta.Base[0] + v.Delivered[0], BytesToClient: flow.Meta.Base[1] + v.Delivered[1],
			end: func() error { return table.End(flow) },
		}
		pair := flow.Flow()
		view.Client, view.Target = pair.A, pair.B
		if n, ok := proxy.ReadNote(flow.Note, pair); ok {
			view.Listener, view.Upstream, view.Server = n.Listener, n.Upstream, n.Server
		}
		for i := range v.Flows {
			view.Packets[i], view.Retransmits[i], view.Errors[i] = v.Flows[i].Packets, v.Flows[i].Retransmits, v.Flows[i].Errors
			view.TooBig[i] = v.Flows[i].TooBig
		}
		if err := f(&view); err != nil {
			return err
		}
	}
	return nil
}
