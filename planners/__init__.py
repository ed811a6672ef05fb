"""Search over action sequences: action sets, objectives, planners and the controller. `base.py` states the contract."""
