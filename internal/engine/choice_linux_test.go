package engine

import "testing"

func newChoice(k Kind) *choice {
	c := new(choice)
	c.init(k, WhyNoBytes)
	return c
}

func (c *choice) expect(t *testing.T, k Kind, w Why) {
	t.Helper()
	if gotK, gotW := c.current(); gotK != k || gotW != w {
		t.Fatalf("engine %v (%v), want %v (%v)", gotK, gotW, k, w)
	}
}

func streaming(t *testing.T) *choice {
	c := newChoice(Auto)
	for range streamReads {
		c.copied(streamRead)
	}
	c.expect(t, Splice, WhyStream)
	return c
}

func TestChoiceStartsWithCopy(t *testing.T) {
	newChoice(Auto).expect(t, Copy, WhyNoBytes)
	newChoice(Splice).expect(t, Copy, WhyNoBytes)
	newChoice(Copy).expect(t, Copy, WhyRequested)
}

func TestChoiceSplicesStreamsOnly(t *testing.T) {
	c := newChoice(Splice)
	for range 100 {
		c.copied(streamRead - 1)
		c.expect(t, Copy, WhySmallMessages)
	}
	for range streamReads - 1 {
		c.copied(streamRead)
		c.expect(t, Copy, WhySmallMessages)
	}
	c.copied(1) // not in a row
	c.copied(streamRead)
	c.expect(t, Copy, WhySmallMessages)
}

func TestChoiceNeverSplicesWhenTold(t *testing.T) {
	c := newChoice(Copy)
	for range 100 {
		c.copied(streamRead)
	}
	c.expect(t, Copy, WhyRequested)
}

func TestChoiceLeavesAStreamThatDriesUp(t *testing.T) {
	c := streaming(t)
	for range 100 {
		c.spliced(smallBurst)
		c.pause()
	}
	c.expect(t, Splice, WhyStream)
	for range smallBursts {
		c.expect(t, Splice, WhyStream)
		c.spliced(smallBurst - 1)
		c.pause()
	}
	c.expect(t, Copy, WhySmallMessages)
}

func TestChoiceGivesUpOnBlindSplice(t *testing.T) {
	c := streaming(t)
	for range 3 * blindReads { // now and then it is a race, and no proof
		c.copied(1000)
		c.spliced(streamRead)
	}
	c.expect(t, Splice, WhyStream)
	for range blindReads {
		c.copied(streamRead)
	}
	c.expect(t, Copy, WhySpliceBlind)
	for range 100 {
		c.copied(streamRead)
	}
	c.expect(t, Copy, WhySpliceBlind)
}

func TestChoiceAsksForAPipeAgain(t *testing.T) {
	c := streaming(t)
	c.noPipe()
	for range pipelessReads + streamReads - 1 {
		c.expect(t, Copy, WhyPipeBudget)
		c.copied(streamRead)
	}
	c.copied(streamRead)
	c.expect(t, Splice, WhyStream)
}

func TestChoiceObeysRefusal(t *testing.T) {
	c := streaming(t)
	c.refused()
	for range 100 {
		c.copied(streamRead)
	}
	c.expect(t, Copy, WhyUnsupported)
}

func TestAutoCopiesWhereSpliceDoes(t *testing.T) {
	var r Reactor
	r.sample.Do(func() { r.copies = true })
	if k, w := r.choose(Auto); k != Copy || w != WhyCopiesAnyway {
		t.Fatalf("auto is %v (%v)", k, w)
	}
	if k, _ := r.choose(Splice); k != Splice {
		t.Fatalf("splice became %v", k)
	}
}
