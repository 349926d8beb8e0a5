"""`python -m prove` is `provectl`."""

from prove.cli import main

main()
