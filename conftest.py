"""Shared by every test of the repository: none fails because its machine is busy."""

from hypothesis import HealthCheck, settings

# By default an example that takes 200 ms fails, and so do examples that are slow to make.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
