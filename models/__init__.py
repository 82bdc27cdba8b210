"""Prediction models: the inputs of a model, and the bundle that carries it with its manifest and card.

It may import datasets, xgboost and scikit-learn; never Ray. Open `bundle.py` first. `bundled/` holds the model that
ships.
"""
