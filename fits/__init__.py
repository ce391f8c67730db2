"""Turn tables of runs into laws, and laws into decisions."""
