"""What `provectl bench` measures: one module a figure, and `report` for what is written of them.

Figures are ratios taken side by side in one run wherever they can be, medians of rounds, and the
only place besides `provectl verify` that holds limits of time; tests never do.
"""
