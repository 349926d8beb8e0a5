"""prove: a shop that proves its own reliability; this package is its library and `provectl`."""

from importlib.metadata import version

__version__ = version("prove")
