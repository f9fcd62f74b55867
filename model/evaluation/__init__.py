"""How good a domain is, measured through the engine that serves it."""
