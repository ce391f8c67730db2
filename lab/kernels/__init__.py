"""Acceleration, and nothing else: faster forms of what `lab.model` computes, for NVIDIA GPUs. What
is trained does not depend on this folder but for rounding; `choose` is its only door.
"""
