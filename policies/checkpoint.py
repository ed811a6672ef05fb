"""The folder of a trained policy, and its checks; a world model's folder with other names (`wm/checkpoint.py`).

    policy.json         what it is: kind, sizes, environment, statistics, encoder, data, versions; with a checksum of itself
    policy.safetensors  weights and the mean latent; its SHA-256 stands in policy.json
    encoder/            a copy of the encoder, unless it is one that ships with the package

The tensors are written first and `policy.json` last. Reading believes nothing, and reports everything found wrong in one error.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from goalward import UserError
from goalward.datasets.durable import explain, replace_file, write_file
from goalward.datasets.strict_json import parse, read_regular
from goalward.policies.base import Options, PolicyDescription
from goalward.policies.network import PolicyNetwork, Shape
from goalward.policies.registry import KINDS
from goalward.wm.checkpoint import ENCODER_FOLDER, build_strictly, json_checksum, read_tensors, tensor_faults

POLICY_JSON = "policy.json"
TENSORS = "policy.safetensors"
FORMAT = "goalward-policy"
SCHEMA = 1
_MAX_JSON_BYTES = 4 * 2**20
_MEAN = "latent_mean"


def build_network(description: PolicyDescription, options: Options, generator: torch.Generator | None = None) -> PolicyNetwork:
    """An untrained network of the kind and sizes described."""
    return KINDS[description.kind].network(
        description.network,
        options,
        Shape(
            num_tokens=description.num_tokens,
            dim=description.dim,
            action_dim=len(description.env.action_names),
            proprio_dim=len(description.env.proprio_names) if description.proprio else 0,
        ),
        generator,
    )


def save_policy(
    folder: Path,
    description: PolicyDescription,
    tensors: dict[str, Tensor],
    mean_ND: Tensor,
    *,
    encoder_files: dict[str, bytes] | None = None,
) -> None:
    """Writes a policy folder; an older policy in it is replaced.

    Args:
        folder: Made where missing.
        description: What it is.
        tensors: Weights by name.
        mean_ND: Mean of the training latents, float32 [N, D].
        encoder_files: Files of the encoder folder, for an encoder that does not ship with the package.

    Raises:
        UserError: The folder cannot be written.
    """
    raw = save({**{name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}, _MEAN: mean_ND.contiguous()})
    body = json.loads(json.dumps(dataclasses.asdict(description)))
    body |= {"format": FORMAT, "schema": SCHEMA, "tensors_sha256": hashlib.sha256(raw).hexdigest()}
    body["checksum"] = json_checksum(body)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if encoder_files:
            (folder / ENCODER_FOLDER).mkdir(exist_ok=True)
            for name, data in encoder_files.items():
                write_file(folder / ENCODER_FOLDER / name, data)
        replace_file(folder / TENSORS, raw)
        replace_file(folder / POLICY_JSON, json.dumps(body, indent=1, sort_keys=True).encode() + b"\n")
    except OSError as error:
        raise explain(error, folder) from error


def read_policy(folder: Path) -> tuple[PolicyDescription, PolicyNetwork, Tensor]:
    """Reads and checks a policy folder.

    Returns:
        The description, the network (float32, on the CPU, gradients off) and the mean latent [N, D].

    Raises:
        UserError: Anything is wrong; one line that names everything found.
    """
    path = folder / POLICY_JSON
    if not path.is_file():
        raise UserError(f"{folder}: no {POLICY_JSON} in it, so not a policy; goalward imitate writes one")
    body = parse(read_regular(path, _MAX_JSON_BYTES), path)
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise UserError(f"{path}: not the description of a Goalward policy; goalward imitate writes one")
    if body.get("schema") != SCHEMA:
        raise UserError(f"{path}: schema {body.get('schema')!r}; this version reads schema {SCHEMA}: update goalward or train again")
    faults: list[str] = []
    checksum = body.pop("checksum", None)
    try:
        changed = checksum != json_checksum(body)
    except UserError:  # A number that is not finite has slipped in, as 1e400.
        changed = True
    if changed:
        faults.append(f"{POLICY_JSON} was changed after it was written (checksum)")
    sha256 = body.pop("tensors_sha256", None)
    entries = {key: value for key, value in body.items() if key not in ("format", "schema")}
    description = build_strictly(PolicyDescription, entries, "", faults, source=POLICY_JSON)
    tensors = read_tensors(folder / TENSORS, sha256, faults, source=POLICY_JSON)
    network = None if description is None else _described(description, faults)
    if network is not None and tensors is not None:
        expected = {name: tuple(p.shape) for name, p in network.named_parameters()}
        faults += tensor_faults(tensors, expected | {_MEAN: (description.num_tokens, description.dim)})
    if faults or network is None or tensors is None:
        raise UserError(f"{folder}: damaged policy: {'; '.join(faults)}; copy it again or train it again")
    mean_ND = tensors.pop(_MEAN)
    network.load_state_dict(tensors, assign=True)
    return description, network.requires_grad_(False), mean_ND


def _described(description: PolicyDescription, faults: list[str]) -> PolicyNetwork | None:
    """The network that a description speaks of, without weights; None if it contradicts itself."""
    before = len(faults)
    faults += [f"{POLICY_JSON}: {fault}" for fault in description.faults()]
    options = None
    if description.kind not in KINDS:
        faults.append(f"{POLICY_JSON}: kind is {description.kind[:40]!r}; this version knows {', '.join(KINDS)}")
    else:
        options = build_strictly(KINDS[description.kind].options, description.options, "options", faults, source=POLICY_JSON)
    if len(faults) > before or options is None:
        return None
    # On the meta device a shape costs no memory, whatever the file claims.
    with torch.device("meta"):
        return build_network(description, options)
