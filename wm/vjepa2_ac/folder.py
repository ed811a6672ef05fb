"""The folder of a converted V-JEPA 2-AC predictor: `convert_predictor` makes it from the published file, once; `read_predictor` reads it.

    vjepa2_ac.safetensors   the published weights, by their published names, unchanged
    vjepa2_ac.json          sizes, where the weights came from (SHA-256 of the published file), and their own SHA-256; with a checksum

The tensors are written first and the JSON last: a folder with a JSON is whole.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save

from goalward import UserError
from goalward.datasets.durable import explain, replace_file
from goalward.datasets.strict_json import parse, read_regular
from goalward.wm.checkpoint import build_strictly, json_checksum, read_tensors
from goalward.wm.conversion.tensor_file import read_tensors as read_published
from goalward.wm.vjepa2_ac.config import VJepa2ACConfig
from goalward.wm.vjepa2_ac.mapping import check_names, sizes_of, stripped, translated
from goalward.wm.vjepa2_ac.predictor import VJepa2ACPredictor

JSON_NAME = "vjepa2_ac.json"
TENSORS_NAME = "vjepa2_ac.safetensors"
FORMAT = "goalward-vjepa2-ac"
SCHEMA = 1
LICENCE = "Apache-2.0 for the weights by their model page, MIT for the public code; check both at download"
_MAX_JSON_BYTES = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """What a conversion read and wrote."""

    config: VJepa2ACConfig
    """Sizes."""
    num_parameters: int
    """Numbers in all weights."""
    source_sha256: str
    """Of the published file."""
    tensors_sha256: str
    """Of the weights written."""


def convert_predictor(
    source: Path, folder: Path, *, heads: int = 16, rows: int = 16, columns: int = 16, extrinsics: bool = False
) -> Converted:
    """Converts the predictor in a published `.pt` file, such as `vjepa2-ac-vitg.pt`.

    Args:
        source: The file.
        folder: Where the converted predictor goes; made where missing.
        heads: Attention heads; cannot be seen in the weights.
        rows: Rows of the grid of patches: image height over patch size.
        columns: Columns of the grid.
        extrinsics: Whether the camera's pose is a token; the published model was trained without.

    Raises:
        UserError: The file is missing, truncated, no plain tensors, or another architecture's; keys that are missing, surplus or of a wrong
            shape are all listed. Nothing is written then.
    """
    published = read_published(source, ("predictor",))
    tensors = stripped(published.sections["predictor"])
    config = dataclasses.replace(sizes_of(tensors, heads=heads), rows=rows, columns=columns, extrinsics=extrinsics)
    check_names(tensors, config)
    raw = save({name: tensor.contiguous() for name, tensor in sorted(tensors.items())})
    sha256 = hashlib.sha256(raw).hexdigest()
    body = {
        "format": FORMAT, "schema": SCHEMA, "sizes": dataclasses.asdict(config), "tensors_sha256": sha256,
        "source": {"file": source.name, "sha256": published.sha256}, "licence": LICENCE,
    }  # fmt: skip
    body["checksum"] = json_checksum(body)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / JSON_NAME).unlink(missing_ok=True)
        replace_file(folder / TENSORS_NAME, raw)
        replace_file(folder / JSON_NAME, json.dumps(body, indent=1, sort_keys=True).encode() + b"\n")
    except OSError as error:
        raise explain(error, folder) from error
    count = sum(tensor.numel() for tensor in tensors.values())
    return Converted(config=config, num_parameters=count, source_sha256=published.sha256, tensors_sha256=sha256)


def read_predictor(folder: Path, *, dtype: torch.dtype = torch.float32) -> VJepa2ACPredictor:
    """Reads a converted predictor, on the CPU, frozen.

    Args:
        folder: As `convert_predictor` writes it.
        dtype: Precision of the weights.

    Raises:
        UserError: Anything is wrong; one line that names everything found.
    """
    path = folder / JSON_NAME
    if not path.is_file():
        raise UserError(f"{folder}: no {JSON_NAME} in it, so no converted V-JEPA 2-AC predictor; convert_predictor writes one")
    body = parse(read_regular(path, _MAX_JSON_BYTES), path)
    if not isinstance(body, dict) or body.get("format") != FORMAT or body.get("schema") != SCHEMA:
        raise UserError(f"{path}: not the description of a converted predictor, or of another version; convert the published file again")
    faults: list[str] = []
    if body.get("checksum") != json_checksum(body):
        faults.append(f"{JSON_NAME} was changed after it was written (checksum)")
    config = build_strictly(VJepa2ACConfig, body.get("sizes"), "sizes", faults, source=JSON_NAME)
    tensors = read_tensors(folder / TENSORS_NAME, body.get("tensors_sha256"), faults, source=JSON_NAME)
    if tensors is not None and config is not None and not faults:
        try:
            check_names(tensors, config)
        except UserError as error:
            faults.append(str(error))
    if faults or config is None or tensors is None:
        raise UserError(f"{folder}: damaged: {'; '.join(faults)}; copy it again or convert the published file again")
    return predictor_of(tensors, config, dtype=dtype)


def predictor_of(tensors: dict[str, torch.Tensor], config: VJepa2ACConfig, *, dtype: torch.dtype = torch.float32) -> VJepa2ACPredictor:
    """Makes a frozen predictor from checked weights by their published names."""
    with torch.device("meta"):
        predictor = VJepa2ACPredictor(config)
    predictor.load_state_dict(translated(tensors, config), assign=True)
    return predictor.to(dtype).requires_grad_(False)
