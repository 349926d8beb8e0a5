"""HTTP clients of what a stack consists of."""
