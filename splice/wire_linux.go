package splice

import (
	"fmt"

	"github.com/spliced-io/spliced/internal/engine/wire"
)

// openWire finds out whether EngineWire can run here, if it was named.
func (o *options) openWire() error {
	if o.engine != EngineWire {
		return nil
	}
	if _, err := reactor.OpenWire(wire.Config{Instance: o.wire.Instance, Root: o.wire.Root}); err != nil {
		return fmt.Errorf("%s: %w: %w", o.engine, ErrEngine, err)
	}
	return nil
}
