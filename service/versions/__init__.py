"""What is served, in which versions, and how that changes while requests are answered."""
