"""The closed loop: watch a run, train anew when an alarm rings, and let the gate decide which model serves.

Open `retrain.py` first. `observe.py` reads a run, `promote.py` moves the alias. The rules are in
`training/drift.py` and `training/gate.py`.
"""
