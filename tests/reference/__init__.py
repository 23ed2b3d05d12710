"""Slow, plain implementations to compare the product with."""
