package wire

// PassUp has the entries of a switched pair say that n more bytes of leg i had been passed up to its socket before
// the cut, which has not received them: as after a segment that came by at the moment of the switch.
func (pair *Pair) PassUp(i int, n uint32) error {
	flows, err := pair.flows()
	if err != nil {
		return err
	}
	flows[i].Cut += n
	flows[i].Passed, flows[i].End = flows[i].Cut, flows[i].Cut
	flows[1-i].CutAck += n
	for i := range flows {
		if err := pair.plane.objects.Flows.Put(&pair.keys[i], &flows[i]); err != nil {
			return err
		}
	}
	return nil
}

// AbortAsOf is Abort by a look that is of the past.
func (pair *Pair) AbortAsOf(v *View) { pair.abort(v) }
