"""Payments, settled exactly once."""
