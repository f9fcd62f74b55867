"""The compiled index of a domain: what its catalog costs to prepare, as arrays that processes share.

`layout.py` has the bytes of a file, `sealed.py` the memory that processes share, `contents.py` what is in it, and
`cache.py` the folder that keeps files from one start to the next. Nothing here imports torch.
"""
