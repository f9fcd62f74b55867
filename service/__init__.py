"""The service around the model: everything from a request to its answer, over HTTP and on the command line.

`http` is the app and its routes, `schemas` the bodies, `answering` the path of a request, `batching` the lanes to the
engine, `versions` what is served and how it changes, `observability` metrics, logs and traces, `cli` the command line.
"""
