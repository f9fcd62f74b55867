"""Importing checkpoints of VIP5, P5 and plain T5 into bundles."""
