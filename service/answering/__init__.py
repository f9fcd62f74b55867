"""Answers requests, for HTTP and for the command line; independent of any web framework.

`recommender.py` ranks items, `explainer.py` generates texts; `service.py` opens and closes all that they need.
"""
