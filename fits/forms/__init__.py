"""Laws as formulas: what goes in, what comes out, and the derivatives; one family a file."""
