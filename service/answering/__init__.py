"""From a request to its answer, for HTTP and for the command line alike; knows no web framework."""
