package engine

import "github.com/spliced-io/spliced/internal/engine/wire"

// doubtQuestions is how often a side is asked: what is asked can be lost, and what is answered.
const doubtQuestions = 3

// A doubt is whether a side is there. A RST of its may have come that is not where its receiver is, as far as the
// program knows: if it is true and was believed, nobody is left to say that the flow is over, but what is left of its sender's
// machine. Or it is on this machine and answers nothing: there nobody says by itself that a socket is gone.
type doubt struct {
	at   [2]int64 // of the last one of each side: see [wire.View]
	left [2]int   // questions
}

// question asks a side whether it is there, if there is a doubt. One that is gone answers with a RST that is
// believed. Who has taken the RST is not asked: its answer would look as if it had begun.
func (w *wiring) question(l *loop, v *wire.View) {
	d := &w.doubt
	due := w.at != 0 && l.now >= w.at
	if due {
		w.at = 0
	}
	for i, at := range v.Doubted {
		fresh := at > d.at[i]
		if fresh {
			d.at[i], d.left[i] = at, doubtQuestions
		}
		if d.left[i] == 0 || v.Over {
			continue
		}
		if fresh || due {
			d.left[i]--
			w.pair.Ask(v, i)
		}
		if d.left[i] > 0 && w.at == 0 {
			w.at = l.now + wireAsk
		}
	}
}
