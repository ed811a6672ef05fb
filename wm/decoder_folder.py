"""The decoder beside an encoder: `decoder.json` (what it is, whose tokens it reads) + `decoder.safetensors` (its weights).

As with every folder here, the weights are written first and the JSON, which holds their SHA-256, last; and reading believes nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save

from goalward import UserError
from goalward.datasets.strict_json import parse, read_regular
from goalward.wm.checkpoint import build_strictly, json_checksum, read_tensors, tensor_faults
from goalward.wm.decoder import Decoder, DecoderConfig, DecoderNetwork
from goalward.wm.encoders.folder import write_atomically

DECODER_JSON = "decoder.json"
DECODER_TENSORS = "decoder.safetensors"
FORMAT = "goalward-decoder"
SCHEMA = 1
_MAX_JSON_BYTES = 2**16
_FIX = "copy it again, or run goalward pretrain --objective pixels again"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Description:
    config: DecoderConfig
    encoder: str


def save_decoder(folder: str | Path, decoder: Decoder) -> None:
    """Writes a decoder into the folder of its encoder.

    Raises:
        UserError: The folder cannot be written.
    """
    raw = save({name: value.cpu().contiguous() for name, value in sorted(decoder.state_dict().items())})
    body = json.loads(json.dumps(asdict(_Description(config=decoder.config, encoder=decoder.encoder))))
    body |= {"format": FORMAT, "schema": SCHEMA, "tensors_sha256": hashlib.sha256(raw).hexdigest()}
    body["checksum"] = json_checksum(body)
    write_atomically(Path(folder) / DECODER_TENSORS, raw)
    write_atomically(Path(folder) / DECODER_JSON, json.dumps(body, indent=2, sort_keys=True).encode() + b"\n")


def forget_decoder(folder: str | Path) -> None:
    """Removes a decoder from the folder of an encoder, if there is one."""
    for name in (DECODER_JSON, DECODER_TENSORS):
        (Path(folder) / name).unlink(missing_ok=True)


def read_decoder(
    folder: str | Path, *, encoder: str, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> Decoder | None:
    """Reads and checks the decoder beside an encoder.

    Args:
        folder: Of the encoder.
        encoder: Its fingerprint.
        device: Where the decoder computes.
        dtype: Precision of its products; None picks bfloat16 where the hardware is fast at it.

    Returns:
        None where there is none.

    Raises:
        UserError: It is damaged, or belongs to another encoder; one line that names everything found.
    """
    path = Path(folder) / DECODER_JSON
    if not path.exists():
        return None
    body = parse(read_regular(path, _MAX_JSON_BYTES), path)
    if not isinstance(body, dict) or body.get("format") != FORMAT or body.get("schema") != SCHEMA:
        raise UserError(f"{path}: not the description of a decoder that this version reads (schema {SCHEMA}); {_FIX}")
    faults: list[str] = []
    try:
        changed = body.pop("checksum", None) != json_checksum(body)
    except UserError:  # A number that is not finite has slipped in, as 1e400.
        changed = True
    if changed:
        faults.append(f"{DECODER_JSON} was changed after it was written (checksum)")
    sha256 = body.pop("tensors_sha256", None)
    rest = {key: value for key, value in body.items() if key not in ("format", "schema")}
    found: _Description | None = build_strictly(_Description, rest, "", faults, source=DECODER_JSON)
    tensors = read_tensors(Path(folder) / DECODER_TENSORS, sha256, faults, source=DECODER_JSON)
    if found is not None and found.encoder != encoder:
        faults.append(f"it was trained with encoder {found.encoder[:12]}, this one is {encoder[:12]}")
    if found is not None and tensors is not None:
        # On the meta device a shape costs no memory, whatever the file claims.
        with torch.device("meta"):
            shapes = {name: tuple(value.shape) for name, value in DecoderNetwork(found.config).state_dict().items()}
        faults += tensor_faults(tensors, shapes)
    if faults or found is None or tensors is None:
        raise UserError(f"{folder}: damaged decoder: {'; '.join(faults)}; {_FIX}")
    network = DecoderNetwork(found.config)
    network.load_state_dict(tensors)
    return Decoder(network, encoder=encoder, device=device, dtype=dtype)
