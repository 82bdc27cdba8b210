"""Where models come from: whole lives, their labels, fits, calibration, scores beside baselines, the registry.

It may import models, datasets and physics. In the order of the work: `histories.py` (`twin generate`), `labels.py`,
`samples.py`, `fit.py`, `distributed.py` (Ray Train), `evaluate.py`, `train.py` (`twin train`), `registry.py` (MLflow).
`validation/` compares the physics with what others computed and measured.
"""
