"""Where the best setting lies: basins, transfer, batch, allocation, sparsity."""
