"""Which runs to buy: a pool of candidates, what is believed of their losses and the target's, and
the choice that leaves the target's prediction the surest for a budget.
"""
