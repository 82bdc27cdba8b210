"""Where models come from: complete simulated lifetimes, their labels, fits, calibration, scores beside baselines.

It may import models, datasets and physics. Open `lives.py` first (what is simulated and labelled), then
`first_model.py` (how the bundled model is made: `make model`). `validation/` compares the physics with what others
computed and measured.
"""
