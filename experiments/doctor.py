"""`goalward doctor`: what is installed, and whether it can render and load a model here."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from dataclasses import dataclass
from typing import Any

import goalward
from goalward import UserError

_PACKAGES = ("torch", "mujoco", "dm_control", "gymnasium", "numpy", "zarr", "safetensors")


@dataclass(frozen=True, kw_only=True, slots=True)
class DoctorCommand:
    """Print versions, threads, the rendering back end, environments, models and encoders; say what is missing."""

    json: bool = False
    """Print JSON on standard output, and nothing else."""


def versions() -> dict[str, str]:
    """Versions of everything that a result depends on."""
    found = {"goalward": goalward.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def machine() -> dict[str, Any]:
    """What a result was measured on."""
    import torch

    facts: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cpus": usable_cpus(),
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name(0)
    if backend := os.environ.get("MUJOCO_GL"):
        facts["rendering"] = backend
    return facts


def usable_cpus() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def diagnose() -> tuple[dict[str, Any], list[str]]:
    """Looks at everything.

    Returns:
        Facts by topic, and the problems found, each with its fix.
    """
    problems: list[str] = []
    facts: dict[str, Any] = {"versions": versions()}
    problems += [
        f"{name} is not installed; pip install goalward installs it" for name, version in facts["versions"].items() if version == "missing"
    ]
    facts["rendering"] = _rendering(problems)
    facts["machine"] = machine()
    facts |= {"environments": _environments(), "models": _models(problems), "encoders": _encoders(problems), "video": _video(problems)}
    return facts, problems


def _rendering(problems: list[str]) -> dict[str, Any]:
    try:
        from goalward.envs.gl_backend import available_backends, choose_backend

        return {"backend": choose_backend(), "available": list(available_backends())}
    except UserError as error:
        problems.append(str(error))
        return {"backend": None, "available": []}


def _environments() -> dict[str, Any]:
    from goalward.envs.goals import SPLITS, load_manifest
    from goalward.envs.registry import ENVS

    found: dict[str, Any] = {}
    for name, entry in ENVS.items():
        goals = {}
        for split in SPLITS:
            try:
                goals[split] = len(load_manifest(name, split).goals)
            except UserError:
                goals[split] = 0
        found[name] = {"id": entry.id, "goals": goals}
    return found


def _models(problems: list[str]) -> dict[str, Any]:
    from goalward.wm.model import shipped_models

    found: dict[str, Any] = {}
    for name in shipped_models():
        try:
            model = goalward.load_model(name)
            description = model.description
            found[name] = {"env": description.env.env, "cameras": list(description.env.cameras), "encoder": description.encoder.name}
        except UserError as error:
            problems.append(str(error))
            found[name] = {"damaged": str(error)}
    if not found:
        problems.append("no model is shipped with this installation; train one with goalward train")
    return found


def _encoders(problems: list[str]) -> dict[str, Any]:
    from goalward.wm.encoders.registry import ENCODERS, load_encoder

    found: dict[str, Any] = {}
    for name, entry in ENCODERS.items():
        try:
            found[name] = {"about": entry.about, "fingerprint": load_encoder(name).fingerprint}
        except UserError as error:
            problems.append(str(error))
            found[name] = {"about": entry.about, "missing": str(error)}
    return found


def _video(problems: list[str]) -> str | None:
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_version())
    except (ImportError, RuntimeError) as error:
        problems.append(f"no ffmpeg for the videos of reports ({error}); pip install 'imageio[ffmpeg]'")
        return None


def run(config: DoctorCommand) -> int:
    """Runs the command.

    Returns:
        Exit code: 0, or 1 when something is missing.
    """
    facts, problems = diagnose()
    if config.json:
        import json

        json.dump(facts | {"problems": problems}, sys.stdout, indent=1)
        print()
    else:
        _print(facts, problems)
    return 1 if problems else 0


def _print(facts: dict[str, Any], problems: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("versions", ", ".join(f"{name} {version}" for name, version in facts["versions"].items()))
    table.add_row("machine", ", ".join(f"{name} {value}" for name, value in facts["machine"].items()))
    backend = facts["rendering"]["backend"]
    table.add_row("rendering", "none" if backend is None else f"{backend} (available: {', '.join(facts['rendering']['available'])})")
    for name, env in facts["environments"].items():
        goals = ", ".join(f"{count} {split} goals" for split, count in env["goals"].items() if count)
        table.add_row(f"environment {name}", f"{env['id']}, {goals or 'no goals'}")
    for name, model in facts["models"].items():
        table.add_row(
            f"model {name}",
            "damaged" if "damaged" in model else f"{model['env']}, cameras {', '.join(model['cameras'])}, encoder {model['encoder']}",
        )
    for name, encoder in facts["encoders"].items():
        table.add_row(
            f"encoder {name}",
            f"{encoder['about']}; " + (f"fingerprint {encoder['fingerprint'][:12]}" if "fingerprint" in encoder else "not usable"),
        )
    table.add_row("video", f"ffmpeg {facts['video']}" if facts["video"] else "none")
    Console(highlight=False).print(table)
    for problem in problems:
        print(f"problem: {problem}")
    if not problems:
        print("everything needed is here")
