"""Bodies of requests and answers, for HTTP and the command line."""
