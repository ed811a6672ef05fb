"""A folder that names a pretrained encoder instead of holding it: `encoder.json` of kind "pretrained".

A trained model keeps such a reference beside it, not a copy of gigabytes: the source as the user gave it, the read-out, and the fingerprint
that decides. Weights that were moved are found by `--encoder NEW_PLACE`; others than those the model was trained with are refused.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from goalward import UserError
from goalward.wm.encoders.folder import JSON_NAME
from goalward.wm.encoders.hub import require
from goalward.wm.encoders.pretrained import PretrainedEncoder
from goalward.wm.encoders.pretrained_folder import load_pretrained_encoder
from goalward.wm.encoders.spec import EncoderSpec, ReadOut, looks_like_hub_id, parse_spec, read_out_of

KIND = "pretrained"
_HERE = "."


def reference_bytes(encoder: PretrainedEncoder, *, provenance: dict[str, Any] | None = None, here: bool = False) -> bytes:
    """Writes the reference to an encoder.

    Args:
        encoder: What it refers to.
        provenance: How the weights came to be, JSON values, where we made them.
        here: Whether the weights lie beside the reference.
    """
    spec = encoder.origin.spec
    # A folder's path is made absolute: the model may be used from elsewhere.
    source = _HERE if here else spec.source if spec.is_hub_id else str(Path(spec.source).resolve())
    described = {
        "schema": 1,
        "kind": KIND,
        "name": encoder.name,
        "licence": encoder.licence,
        "source": source,
        "revision": spec.revision,
        "read_out": dataclasses.asdict(encoder.read_out),
        "fingerprint": encoder.fingerprint,
        "weights_sha256": encoder.origin.weights_sha256,
        "versions": {"transformers": str(require("transformers").__version__), "torch": str(torch.__version__)},
    }
    if provenance is not None:
        described["provenance"] = provenance
    return (json.dumps(described, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def load_reference(
    folder: Path,
    described: dict[str, Any],
    *,
    options: dict[str, int | str] | None = None,
    at: str | Path | None = None,
    **load: Any,
) -> PretrainedEncoder:
    """Follows a reference.

    Args:
        folder: Where it lies.
        described: Its content, from `read_description`.
        options: Options given on top of its read-out.
        at: Where the weights are now; None: where they were.
        load: Device, dtype, compiled, as `load_pretrained_encoder` takes them.

    Raises:
        UserError: The reference is damaged, its source is gone, or what is there now is another encoder.
    """
    file = folder / JSON_NAME
    texts = ("name", "licence", "source", "revision", "fingerprint", "weights_sha256")
    if wrong := [key for key in texts if not isinstance(described.get(key), str) or (key != "revision" and not described[key])]:
        raise UserError(f"encoder folder {folder} is damaged: {JSON_NAME}: {', '.join(wrong)} must be texts; copy it again")
    if len(described["source"]) > 1024:
        raise UserError(f"encoder folder {folder} is damaged: {JSON_NAME}: source has {len(described['source'])} characters; copy it again")
    base = _read_out(described.get("read_out"), file)
    spec = EncoderSpec(source=described["source"], revision=described["revision"], options=options or {})
    if at is not None:
        spec = parse_spec(at)
        if not spec.is_hub_id and not Path(spec.source).is_dir():
            raise UserError(f"encoder {str(at)!r}: no such folder; give the folder of {described['name']}, or its hub id with a commit")
    elif spec.source == _HERE:
        spec = dataclasses.replace(spec, source=str(folder))
    elif not spec.is_hub_id and not Path(spec.source).is_dir():
        raise UserError(f"encoder {described['name']} was at {spec.source}, and is not there any more; say where it is now with --encoder")
    encoder = load_pretrained_encoder(spec, base=base, **load)
    if not spec.options and encoder.fingerprint != described["fingerprint"]:
        raise UserError(
            f"encoder at {spec.source} has fingerprint {encoder.fingerprint[:12]}, {file} refers to {described['fingerprint'][:12]}: other "
            f"weights, preprocessing or configuration; give the folder of {described['name']} as it was, with --encoder"
        )
    if encoder.origin.weights_sha256 != described["weights_sha256"]:  # options may change the fingerprint, never the weights
        raise UserError(
            f"encoder at {spec.source} has weights of SHA-256 {encoder.origin.weights_sha256[:12]}, {file} refers to "
            f"{described['weights_sha256'][:12]}; give the folder of {described['name']} as it was, with --encoder"
        )
    return encoder


def missing_encoder(text: str, hint: str) -> UserError:
    """The error for a text that names nothing; a hub id without a commit is told what it lacks."""
    if looks_like_hub_id(text.partition("#")[0]):
        hint += "; a hub id needs the commit that is meant, as in facebook/dinov2-small@<40 hexadecimal digits>"
    return UserError(f"encoder {text!r}: neither a known name nor a folder; {hint}, or give the folder that `goalward pretrain` wrote")


def _read_out(raw: object, file: Path) -> ReadOut:
    names = {entry.name: entry.type for entry in dataclasses.fields(ReadOut)}
    if not isinstance(raw, dict) or set(raw) != set(names):
        raise UserError(f"{file}: read_out must hold exactly {', '.join(names)}; copy the folder again")
    kinds = {name: str if name in ("fit", "norm") else int for name in names}
    if wrong := [name for name, kind in kinds.items() if type(raw[name]) is not kind]:
        raise UserError(f"{file}: read_out.{wrong[0]} is {raw[wrong[0]]!r}, must be {kinds[wrong[0]].__name__}; copy the folder again")
    return read_out_of(raw)
