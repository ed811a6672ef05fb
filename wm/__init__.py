"""The world model: encoders, predictor, rollout, training, checkpoints. `base.py` states the contract."""
