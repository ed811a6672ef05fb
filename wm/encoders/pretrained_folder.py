"""Loads a model folder in `transformers` format: config.json + model.safetensors (in one file or in shards), checked before it is believed.

First what costs nothing (the configuration, the headers of the weights), then the weights, through `from_pretrained`, which here can only
read safetensors and only runs classes of `transformers` itself. Whatever is missing, surplus or of another shape is listed at once, and the
half-filled model is dropped.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from goalward import UserError
from goalward.datasets.strict_json import canonical, parse, read_regular
from goalward.wm.base import inference_dtype
from goalward.wm.encoders.families import FAMILIES, Family
from goalward.wm.encoders.hub import fetch_snapshot, require
from goalward.wm.encoders.licences import announce, licence_of
from goalward.wm.encoders.pretrained import Origin, PretrainedEncoder
from goalward.wm.encoders.published_transform import preprocessing_of
from goalward.wm.encoders.spec import EncoderSpec, ReadOut, read_out_of
from goalward.wm.encoders.tensor_files import StoredTensor, hash_tensors, stored_tensors

CONFIG = "config.json"
_FORMAT = 1
_MAX_CONFIG_BYTES = 2**20
_ADAPTER = "adapter_config.json"
_REDIRECTS = {"transformers_weights", "quantization_config"}


def load_pretrained_encoder(
    spec: EncoderSpec,
    *,
    base: ReadOut | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    compiled: bool = False,
) -> PretrainedEncoder:
    """Loads an encoder from a folder or a hub.

    Args:
        spec: Where it is, and the options given.
        base: Options where none are given; None: the defaults.
        device: Where it computes.
        dtype: Precision of its weights; None picks bfloat16 where the hardware is fast at it.
        compiled: Compile the network.

    Raises:
        UserError: Anything is wrong with the folder, the hub, the installation or the options; one line.
    """
    folder = fetch_snapshot(spec.source, spec.revision) if spec.is_hub_id else Path(spec.source)
    family = family_of(folder)
    tensors = stored_tensors(folder)
    read_out = read_out_of(spec.options, base)
    precision = dtype or inference_dtype(torch.device(device))
    with _quiet():
        config = _config(folder, family)
        preprocessing = preprocessing_of(folder, family, config, read_out)
        if family.name == "vjepa2":
            config.crop_size = preprocessing.crop_px  # its positions count rows and columns by it
        model = _model(folder, family, config, tensors, precision)
    weights = hash_tensors(tensors, family.is_used)
    decides = {name: getattr(config, name) for name in family.architecture}
    options = {"tokens": read_out.tokens, "norm": read_out.norm, "frame": read_out.frame or preprocessing.crop_px}
    described = [_FORMAT, family.name, decides, asdict(preprocessing), options, weights]
    origin = Origin(
        spec=spec,
        folder=folder,
        licence=licence_of(folder, family),
        weights_sha256=weights,
        fingerprint=hashlib.sha256(canonical(described)).hexdigest(),
        num_parameters=sum(tensor.numel for name, tensor in tensors.items() if family.is_used(name)),
    )
    announce(family, origin.licence, str(spec))
    return PretrainedEncoder(model, family, origin, preprocessing, read_out, device=device, dtype=precision, compiled=compiled)


def family_of(folder: Path) -> Family:
    """Reads to which family a folder belongs.

    Raises:
        UserError: No configuration, or one of another architecture.
    """
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder}: no {CONFIG} in it, so not a model folder in transformers format; download the whole folder")
    if (folder / _ADAPTER).exists():
        raise UserError(f"{folder}: {_ADAPTER} says that its weights are changed by an adapter; merge it into the weights and remove it")
    config = parse(read_regular(folder / CONFIG, _MAX_CONFIG_BYTES), folder / CONFIG)
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if told := sorted(_REDIRECTS & set(config if isinstance(config, dict) else ())):
        # transformers would load other weights than those that are checked and hashed here, or others made of them.
        raise UserError(f"{folder / CONFIG}: {', '.join(told)} is not followed; download the original weights, and leave it out")
    if isinstance(model_type, str) and model_type in FAMILIES:
        return FAMILIES[model_type]
    raise UserError(
        f"{folder / CONFIG}: model_type is {str(model_type)[:60]!r}, which is no encoder that this version knows; "
        f"must be one of {', '.join(FAMILIES)}"
    )


def _config(folder: Path, family: Family) -> Any:
    transformers = require("transformers")
    kind = getattr(transformers, family.model_class).config_class
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a configuration that nobody vouches for may break its reader anywhere
        raise UserError(f"{folder / CONFIG}: cannot be read as {kind.__name__} ({_line(error)}); download it again") from error


def _model(folder: Path, family: Family, config: Any, tensors: dict[str, StoredTensor], dtype: torch.dtype) -> Any:
    kind = getattr(require("transformers"), family.model_class)
    if (layers := getattr(config, "num_hidden_layers", 0)) > len(tensors):
        raise UserError(f"{folder / CONFIG}: num_hidden_layers is {layers}, and there are {len(tensors)} tensors; download it again")
    have = sum(tensor.numel for name, tensor in tensors.items() if not re.match(r"text_model\.", name))
    fix = f"take {CONFIG} and weights from one and the same model"
    try:
        with torch.device("meta"):  # a shape costs no memory there, whatever the file claims
            want = sum(value.numel() for value in kind(config).parameters())
    except Exception as error:
        told = f"describes no {family.model_class} that can be made"
        raise UserError(f"{folder / CONFIG}: {told} ({_line(error)}); download it again") from error
    if want > 2 * have + 2**20:
        raise UserError(f"{folder}: {CONFIG} describes {want} parameters, the weights hold {have}; {fix}")
    try:
        # What is missing would be drawn at random; the draw must not move the caller's generator, and is thrown away below.
        with torch.random.fork_rng(devices=[]):
            model, info = kind.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # listed below instead, all of them
                output_loading_info=True,
                dtype=dtype,
                attn_implementation="sdpa",
            )
    except Exception as error:
        raise UserError(f"{folder}: cannot be loaded as {family.model_class} ({_line(error)}); {fix}") from error
    faults = [f"tensor {name} is missing" for name in sorted(info["missing_keys"]) if not family.is_ignored(name)]
    faults += [f"tensor {name} is surplus" for name in sorted(info["unexpected_keys"]) if not family.is_ignored(name)]
    for name, *shapes in sorted(info["mismatched_keys"]):
        if not family.is_ignored(name):
            found, wanted = (list(shape) for shape in shapes)
            faults.append(f"tensor {name} has shape {found}, must be {wanted}")
    if faults:
        raise UserError(f"{folder}: not the weights of this {family.model_class}: {'; '.join(faults)}; {fix}")
    kept = model.encoder if family.name == "vjepa2" else model
    if broken := sorted(name for name, value in kept.named_parameters() if not bool(torch.isfinite(value).all())):
        raise UserError(f"{folder}: tensors {', '.join(broken)} hold values that are not finite; download or convert them again")
    return model


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no reports of transformers on standard error: what matters becomes an error of ours."""
    logging = require("transformers.utils.logging")
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(50)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
