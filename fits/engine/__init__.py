"""From a law and points to parameters, and how sure they are."""
