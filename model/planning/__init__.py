"""From a request in the shop's ids to plans for the engine."""
