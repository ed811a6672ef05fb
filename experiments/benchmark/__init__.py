"""`goalward benchmark`: methods x tasks x splits x training seeds, resumable, over processes, with the statistics of a paired comparison.

spec.json -- spec.py --> cells.py --> run.py -- workers (worker.py, methods.py) --> a journal per cell
journals -- summary.py, comparison.py, attribution.py --> results.json, tables.md, report.html
"""
