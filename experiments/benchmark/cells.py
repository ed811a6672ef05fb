"""The cells of a benchmark: one method on one split of one task, with one training seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from goalward.experiments.benchmark.spec import BenchmarkSpec, MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """Episodes that are counted together."""

    env: str
    """Short name of the task."""
    split: str
    """Name of the split."""
    name: str
    """Name of the method."""
    method: MethodSpec
    """The method, with the names of weights filled in."""
    training_seed: int | None
    """None for a method that does not learn."""
    episodes: int
    """Goals 0 .. episodes - 1."""

    @property
    def title(self) -> str:
        """`reach/test-look/gcbc/1`."""
        return "/".join([self.env, self.split, self.name, *([] if self.training_seed is None else [str(self.training_seed)])])

    @property
    def folder(self) -> Path:
        """Where its journal lies, below the benchmark's folder."""
        return Path("cells") / "".join(c if c.isalnum() or c in "-_." else "_" for c in self.title.replace("/", "--"))


def cells_of(spec: BenchmarkSpec) -> list[Cell]:
    """Every cell once, task by task and split by split, methods in the order of the benchmark."""
    found: dict[tuple[str, str, str, int | None], int] = {}
    for group in spec.cells:
        for env in group.envs:
            for split in group.splits:
                for name in group.methods:
                    for seed in group.training_seeds if spec.methods[name].learns else (None,):
                        key = (env, split, name, seed)
                        found[key] = max(found.get(key, 0), group.episodes)
    order = list(spec.methods)
    ranked = sorted(found, key=lambda key: (key[0], key[1], order.index(key[2]), -1 if key[3] is None else key[3]))
    return [
        Cell(
            env=env, split=split, name=name, training_seed=seed, episodes=found[env, split, name, seed],
            method=filled(spec.methods[name], env=env, seed=seed),
        )
        for env, split, name, seed in ranked
    ]  # fmt: skip


def filled(method: MethodSpec, *, env: str, seed: int | None) -> MethodSpec:
    """The method of one cell: `{env}` and `{seed}` filled in."""
    import dataclasses

    names = {"env": env, "seed": 0 if seed is None else seed}
    return dataclasses.replace(method, weights=method.weights.format(**names), proposals=method.proposals.format(**names))
