"""Service level objectives: their specs, the mathematics of burn rates, rules and their tests.

Pure: text and values in, text and values out; files and processes are `prove.commands.slo`'s.
"""
