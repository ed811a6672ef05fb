"""Which preprocessing belongs to a model folder: what its preprocessor configuration says, or else what its family publishes.

    size, crop_size, resample, image_mean, image_std of preprocessor_config.json (or video_preprocessor_config.json)

Our frames are square, so a "shortest edge" is the side, and a size of height and width must be a square.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from goalward import UserError
from goalward.datasets.strict_json import parse, read_regular
from goalward.wm.encoders.families import Family
from goalward.wm.encoders.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from goalward.wm.encoders.spec import ReadOut

FILES = ("video_preprocessor_config.json", "preprocessor_config.json")
_MAX_BYTES = 2**20
_LARGEST = 1e6  # no number of theirs is as large; an integer may be too large to be a float
_RESAMPLE: dict[object, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def preprocessing_of(folder: Path, family: Family, config: Any, read_out: ReadOut) -> Preprocessing:
    """Finds the preprocessing.

    Args:
        folder: Of the model; a preprocessor configuration in it goes before the family's own.
        family: Its family.
        config: Its configuration, as `transformers` reads it.
        read_out: What the user asked for on top.

    Raises:
        UserError: The preprocessor configuration cannot be followed, or the input is no multiple of the network's patches.
    """
    described, source = _described(folder)
    faults: list[str] = []
    if family.name == "siglip2-naflex" and "max_num_patches" in described:
        published = int(config.patch_size) * math.isqrt(max(1, _count(described["max_num_patches"], "max_num_patches", faults)))
    else:
        published = _side(described.get("crop_size"), "crop_size", faults) or 0
        size = described.get("size")
        if not published and not (isinstance(size, dict) and "shortest_edge" in size):
            published = _side(size, "size", faults) or 0
        published = published or family.input_px(config)
    resized = published * family.margin[0] // family.margin[1]
    # V-JEPA 2's processor derives the size from the crop, whatever its file says.
    if family.name != "vjepa2" and (edge := _side(described.get("size"), "size", faults)):
        resized = edge
    if not described.get("do_center_crop", True) or not described.get("do_resize", True):
        resized = published
    switches = ("do_rescale", "do_normalize")
    faults += [f"{name} is {described[name]!r}, must be true" for name in switches if described.get(name, True) is not True]
    if abs(float(_number(described.get("rescale_factor", 1 / 255), "rescale_factor", faults)) - 1 / 255) > 1e-9:
        faults.append("rescale_factor must be 1 / 255")
    resample = described.get("resample", {"bilinear": 2, "bicubic": 3}[family.resample])
    if type(resample) is not int or resample not in _RESAMPLE:
        faults.append(f"resample is {resample!r}, must be 2 (bilinear) or 3 (bicubic)")
    mean = _colours(described.get("image_mean"), IMAGENET_MEAN if family.imagenet else (0.5, 0.5, 0.5), "image_mean", faults)
    std = _colours(described.get("image_std"), IMAGENET_STD if family.imagenet else (0.5, 0.5, 0.5), "image_std", faults)
    if resized < published:
        faults.append(f"size {resized} is below crop_size {published}")
    if faults:
        raise UserError(f"{source}: {'; '.join(faults)}; download the file again")
    side = read_out.input or published
    if type(config.patch_size) is not int or config.patch_size < 1:
        raise UserError(f"{folder / 'config.json'}: patch_size is {config.patch_size!r}, must be a whole number of pixels")
    if side % int(config.patch_size):
        patch = int(config.patch_size)
        nearest = max(patch, side // patch * patch)
        raise UserError(f"input = {side}: must be a multiple of the network's patches of {patch} px; use {nearest}")
    resize = side if read_out.fit == "whole" else round(resized * side / published)
    return Preprocessing(resize_px=resize, crop_px=side, resample=_RESAMPLE[resample], rounded=family.rounded, mean=mean, std=std)


def _described(folder: Path) -> tuple[dict[str, Any], Path]:
    for name in FILES:
        if (folder / name).is_file():
            described = parse(read_regular(folder / name, _MAX_BYTES), folder / name)
            if not isinstance(described, dict):
                raise UserError(f"{folder / name}: not a JSON object; download the file again")
            return {key: value for key, value in described.items() if value is not None}, folder / name
    return {}, folder / FILES[1]


def _side(raw: object, name: str, faults: list[str]) -> int | None:
    """Reads a size that may be a number, a shortest edge or a height and a width."""
    if raw is None:
        return None
    if isinstance(raw, dict):
        sides = set(map(str, raw.values()))
        if not set(raw) <= {"shortest_edge", "height", "width"} or len(sides) != 1:
            faults.append(f"{name} is {raw!r}, must be a square or a shortest edge")
            return None
        raw = next(iter(raw.values()))
    return _count(raw, name, faults)


def _count(raw: object, name: str, faults: list[str]) -> int:
    if type(raw) is int and 1 <= raw <= 2**16:
        return raw
    faults.append(f"{name} is {raw!r}, must be a whole number of pixels")
    return 1


def _number(raw: object, name: str, faults: list[str]) -> float:
    if isinstance(raw, float | int) and not isinstance(raw, bool) and abs(raw) < _LARGEST:
        return float(raw)
    faults.append(f"{name} is {raw!r}, must be a number")
    return 1 / 255


def _colours(raw: object, default: tuple[float, ...], name: str, faults: list[str]) -> tuple[float, ...]:
    if raw is None:
        return default
    numbers = isinstance(raw, list) and len(raw) == 3 and all(isinstance(value, float | int) and abs(value) < _LARGEST for value in raw)
    if isinstance(raw, list) and numbers and (name == "image_mean" or min(raw) > 0):
        return tuple(map(float, raw))
    faults.append(f"{name} is {raw!r}, must be three finite numbers{'' if name == 'image_mean' else ' above 0'}")
    return default
