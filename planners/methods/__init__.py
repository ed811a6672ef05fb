"""Planners: `search.py` is the anytime loop they share, each method one file; `goalward.planners.registry` names them."""
