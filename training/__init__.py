"""Where models come from: lives lived by the physics, their labels, fits, calibration, scores beside baselines.

May import models, datasets, physics. Open `lives.py` first (what is simulated and labelled), then `first_model.py` (how
the bundled model is made: `make model`).
"""
