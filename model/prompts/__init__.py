"""The 29 templates, and the assembly of a prompt into ids and image slots. Knows no torch."""
