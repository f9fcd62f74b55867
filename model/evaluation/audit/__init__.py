"""What may make a bundle's figures better than they should be, or keep items from being recommended."""
