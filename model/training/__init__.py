"""Training the domains of a bundle on prepared datasets, and sweeps over variants of a run."""
