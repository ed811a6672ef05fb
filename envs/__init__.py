"""Goal-image tasks in MuJoCo behind the Gymnasium API; `base.py` states the contract, `registry.py` lists the tasks.

Importing this package registers the tasks with Gymnasium (its own convention) and prefers offscreen rendering; it loads neither mujoco nor
torch.
"""

from goalward.envs.gl_backend import prefer_offscreen
from goalward.envs.registry import make_env, register_envs

__all__ = ["make_env", "register_envs"]

prefer_offscreen()
register_envs()
