"""What shows how the service is: metrics, traces, logs and whether it is alive."""
