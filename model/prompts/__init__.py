"""The 29 templates, and the assembly of prompts into ids and image slots. Knows no torch."""
