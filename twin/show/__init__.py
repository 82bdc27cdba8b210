"""What a person sees and keeps: the report of a run, progress in a terminal, studies with tables and figures.

Open `report.py` first. `progress.py` is the live panel. `cell_study.py` and `{physics,life,reports}_study.py` are
what `twin cell` and `twin validate` show and write. `plots.py` is how every figure looks.
"""
