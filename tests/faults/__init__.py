"""Break one thing at a time, under load, and count: nothing lost, nothing twice in the store, and how long it took.

Open `scene.py` first.
"""
