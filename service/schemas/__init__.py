"""Bodies of requests and answers, as HTTP and the command line take and give them."""
