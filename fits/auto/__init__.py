"""`--law auto`: the loss of larger runs from a weighted set of forms, each with a
smooth discrepancy.
"""
