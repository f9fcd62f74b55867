"""The torch modules: T5, adapters, visual mapper. Knows nothing of text, items or requests."""
