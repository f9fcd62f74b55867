"""The HTTP routes: validate, hand on, answer."""
