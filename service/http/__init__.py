"""The HTTP interface: app, server, routes, authentication, limits and error responses."""
