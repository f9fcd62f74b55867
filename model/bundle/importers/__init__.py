"""Foreign checkpoints into bundles: VIP5, P5, and plain T5s."""
