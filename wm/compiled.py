"""Rollouts compiled for their exact shape: worth tens of seconds of waiting for whoever plans with one shape, many times.

    model = load_model("reach", compiled=True)

On a CPU, torch's compiler writes C++, so a C++ compiler must be there; on a GPU, kernels are recorded once and replayed as a whole (CUDA
graphs), so that Python's pace does not matter. Torch gives up on a function after `recompile_limit` shapes and silently runs it as
ordinary Python from then on; here that is an error.

Letters: B problems, S candidates, H horizon steps, A action dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from goalward import UserError

if TYPE_CHECKING:
    from goalward.wm.predictor import LatentPredictor, PredictorContext

Compiler = Callable[[Callable[..., Tensor]], Callable[..., Tensor]]


class CompiledRollout:
    """`LatentPredictor.rollout` without gradients, compiled for each shape that comes up; equal to it but for rounding."""

    def __init__(self, predictor: LatentPredictor, device: torch.device, *, compiler: Compiler | None = None) -> None:
        """Compiles nothing yet.

        Args:
            predictor: Its weights must not change any more.
            device: Where it runs.
            compiler: Instead of torch's.
        """
        self._cuda = device.type == "cuda"
        mode = "reduce-overhead" if self._cuda else "default"
        make = compiler or (lambda function: torch.compile(function, fullgraph=True, dynamic=False, mode=mode))
        self._rollout = make(predictor.rolled)
        self._shapes: set[tuple[int, ...]] = set()

    @property
    def num_shapes(self) -> int:
        """How many shapes were compiled."""
        return len(self._shapes)

    def __call__(self, context: PredictorContext, actions_BSHA: Tensor) -> Tensor:
        """Rolls out; the first call of a shape compiles.

        Raises:
            UserError: Too many different shapes, or nothing that could compile.
        """
        from torch._dynamo import config as dynamo  # slow to import, and needed here only
        from torch._dynamo.exc import BackendCompilerFailed, FailOnRecompileLimitHit

        shape = (*actions_BSHA.shape, *(key.shape[2] for key in context.keys[:1]))
        known, limit = sorted(f"[B, S, H] = {list(shape[:3])}" for shape in self._shapes), int(dynamo.recompile_limit)
        if shape not in self._shapes and len(known) >= limit:
            raise UserError(
                f"compiled: actions of shape {list(actions_BSHA.shape)} would be compiled as one shape more than torch keeps ({limit}: "
                f"{'; '.join(known)}); plan with fewer shapes, or load the model without compiled=True"
            )
        try:
            if self._cuda:
                torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
            z_BSHND = self._rollout(context, actions_BSHA)
        except FailOnRecompileLimitHit as error:
            raise UserError(
                f"compiled: torch keeps {limit} compiled shapes of all models together; plan with fewer, "
                "or load the model without compiled=True"
            ) from error
        except BackendCompilerFailed as error:
            reason = " ".join(str(error).split("\n\n")[0].split())
            raise UserError(
                f"compiled: torch cannot compile here ({reason}); install a C++ compiler, or load the model without compiled=True"
            ) from error
        self._shapes.add(shape)
        # A replayed graph writes its result to the same memory each time.
        return z_BSHND.clone() if self._cuda else z_BSHND
