"""Launchers: each starts the same worker, locally or on a cluster."""
