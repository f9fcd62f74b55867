"""Plans requests: translates item and user ids, filters and templates into prompts and options for the engine.

`queries.py` is what planning reads of a request. `rankings.py` and `explanations.py` make plans; `arguments.py` is what
they share. `domain.py` is a served domain, `runtime.py` loads all domains of a bundle.
"""
