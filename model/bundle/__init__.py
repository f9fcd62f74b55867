"""What is on disk: backbone, domains, catalogs, manifest. Loading, verifying, importing."""
