"""The command line of scalelab."""
