"""Other libraries' planners beside ours, on the same problems: what `planner_peers.py` measures, in an environment of its own."""
