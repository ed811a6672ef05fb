"""Goal-image tasks in MuJoCo behind the Gymnasium API; `base.py` states the contract, `registry.py` lists the tasks.

Importing this package registers the tasks with Gymnasium (the one thing done at import, because it is Gymnasium's own convention); it
loads neither mujoco nor torch.
"""

from goalward.envs.registry import make_env, register_envs

__all__ = ["make_env", "register_envs"]

register_envs()
