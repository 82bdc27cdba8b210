"""Our physics against what others computed and measured: PyBaMM, published life models, field studies.

Nothing here is needed to run a fleet. `twin validate` computes every table anew (`twin/show/physics_study.py`,
`life_study.py` and `reports_study.py` say what is run and written). Against PyBaMM: `electrical.py` (half an hour of
driving), `aging.py` (hundreds of cycles) and `reference.py` (how PyBaMM is set up, so that both sides solve the same
equations). Against life data: `life.py` (what a cell should lose over years and cycles, and what ours loses),
`published.py` (BLAST-Lite's life models), `calendar.py` and `cycling.py` (slow, readable predictions by our own aging
laws, with which their constants are fitted). What vehicles report, against the truth and real vehicles: `reports.py`.
"""
