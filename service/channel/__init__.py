"""What an engine process and its workers say to each other, and how."""
