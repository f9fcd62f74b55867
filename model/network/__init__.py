"""The torch modules: T5, adapters and visual mapper. Knows nothing of text, items or requests."""
