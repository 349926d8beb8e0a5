"""The local stack: what runs, in which order, with which health check, and its supervision."""
