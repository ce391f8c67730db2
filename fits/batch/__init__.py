"""What a batch buys: the best, the critical one, plans that are not beaten, what trunks say."""
