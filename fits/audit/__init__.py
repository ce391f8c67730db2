"""How far a fit can be believed."""
