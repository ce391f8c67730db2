"""`--law auto`: the loss of larger runs from one form with a weighted set of smooth
discrepancies.
"""
