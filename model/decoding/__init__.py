"""The trie of item identifiers, constrained beam search and text generation. Knows no text and no catalog columns."""
