"""The HTTP boundary: app, routes, schemas, batching, errors, metrics, settings and the command line."""
