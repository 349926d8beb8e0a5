"""The catalogue and its reservations (Flask)."""

from importlib.metadata import version

NAME = "product-service"
VERSION = version("prove-product-service")
