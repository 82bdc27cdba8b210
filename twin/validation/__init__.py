"""Our physics against an independent implementation: PyBaMM, and through it the full Doyle-Fuller-Newman model.

`twin validate physics` makes every table afresh. Open `command.py` first (what is run, what is written), then
`electrical.py` (half an hour of driving), `aging.py` (hundreds of cycles) and `reference.py` (how PyBaMM is set up, so
that both sides solve the same equations). Needs PyBaMM, which only development installs bring.
"""
