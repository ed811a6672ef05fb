"""V-JEPA 2-AC (Assran et al. 2025, arXiv 2506.09985): its predictor with unchanged weights, as a world model that our planners can use.

`config.py` its sizes, `predictor.py` the network, `context.py` what candidates share, `rollout.py` how they are rolled out, `poses.py` its
states and actions, `folder.py` its files, `model.py` the world model. docs/vjepa2-ac.md leads from the download to a plan.
"""
