"""Where the best setting lies: basins, transfer, timescale, allocation, sparsity."""
