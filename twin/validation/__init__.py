"""Comparison of the twin with what others measured: published life models, field studies.

Nothing here is needed to run a fleet. Open `life.py` first: what a cell should lose over years and cycles, and what
ours does. `published.py` asks BLAST-Lite's life models; `calendar.py` and `cycling.py` are slow, readable predictions
of our own aging laws for conditions that never change, so that constants can be fitted to them.
"""
