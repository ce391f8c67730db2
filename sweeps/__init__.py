"""Decide what to train, and get it trained once."""
