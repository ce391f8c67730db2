"""Train small models, correctly and fast."""
