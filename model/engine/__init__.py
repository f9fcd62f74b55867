"""Engines: run batches of plans on a device.

`protocol.py` is the interface of an engine, `plans.py` its input. `decoding_engine.py` searches operator by operator
over an executor (torch or ONNX Runtime); `captured/` runs whole searches as CUDA graphs. `choice.py` creates an engine
by its name in `names.py`.
"""
