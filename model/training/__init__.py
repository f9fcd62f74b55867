"""Making domains from data: datasets, tuning, evaluation."""
