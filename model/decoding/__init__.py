"""Trie of item identifiers, constrained beam search and text generation, over token ids and leaf numbers only."""
