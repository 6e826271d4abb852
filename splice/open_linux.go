package splice

import (
	"fmt"

	"github.com/spliced-io/spliced/internal/engine/wire"
)

// openEngine finds out whether the engine that was named can run here.
func (o *options) openEngine() (err error) {
	switch o.engine {
	case EngineSockmap:
		err = reactor.OpenSockmap()
	case EngineWire:
		_, err = reactor.OpenWire(wire.Config{Instance: o.wire.Instance, Root: o.wire.Root})
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %w", o.engine, ErrEngine, err)
	}
	return nil
}
