"""Machines for a load: a simulation, and the measurements that it stands on."""
