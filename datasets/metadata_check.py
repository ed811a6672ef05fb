"""Checks on the raw JSON of a Zarr array, before any library or any chunk is touched.

A hostile `zarr.json` can name a codec that runs code or declare terabytes in a few hundred bytes. What a store's arrays look like follows
from its specification, so the metadata may only confirm it.
"""

from __future__ import annotations

from typing import Any

from goalward import UserError
from goalward.datasets.arrays import ArrayLayout
from goalward.datasets.strict_json import parse

MAX_METADATA_BYTES = 64 * 1024
ALLOWED_CODECS = frozenset({"bytes", "zstd", "crc32c", "sharding_indexed"})

_ZSTD = {"name": "zstd", "configuration": {"checksum": True}}


def check_array_metadata(raw: bytes, layout: ArrayLayout, source: str) -> None:
    """Checks a `zarr.json` against the expected layout.

    Args:
        raw: content of the file.
        layout: what the store's specification says the array is.
        source: how to name the array in an error.

    Raises:
        UserError: another format version, a codec that is not allowed, or anything else than the expected array.
    """
    if len(raw) > MAX_METADATA_BYTES:
        raise UserError(f"{source}: metadata of {len(raw)} bytes; at most {MAX_METADATA_BYTES} are allowed")
    meta = parse(raw, source)
    if not isinstance(meta, dict):
        raise UserError(f"{source}: metadata is not a JSON object")
    if meta.get("zarr_format") != 3:
        raise UserError(f"{source}: zarr_format={meta.get('zarr_format')!r}; only Zarr v3 is read")
    unknown = sorted(_codec_names(meta.get("codecs"), source) - ALLOWED_CODECS)
    if unknown:
        raise UserError(f"{source}: codecs {unknown} are not allowed; allowed: {', '.join(sorted(ALLOWED_CODECS))}")
    if meta.get("storage_transformers") not in (None, []):
        raise UserError(f"{source}: storage transformers are not allowed")
    expected = _expected(layout)
    actual = {key: meta.get(key) for key in expected}
    actual["codecs"] = _without_level(actual["codecs"])
    for key, value in expected.items():
        if actual[key] != value or _has_bool(actual[key]) != _has_bool(value):
            raise UserError(f"{source}: {key}={_short(actual[key])} where the store's specification asks for {_short(value)}")


def _expected(layout: ArrayLayout) -> dict[str, Any]:
    to_bytes: dict[str, Any] = {"name": "bytes"}
    if layout.itemsize > 1:
        to_bytes["configuration"] = {"endian": "little"}
    codecs: list[dict[str, Any]] = [to_bytes, _ZSTD]
    if layout.shard is not None:
        index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
        sharding = {"chunk_shape": list(layout.chunk), "codecs": codecs, "index_codecs": index, "index_location": "end"}
        codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    return {
        "node_type": "array",
        "data_type": layout.dtype,
        "shape": list(layout.shape),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(layout.shard or layout.chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "codecs": codecs,
    }


def _codec_names(codecs: Any, source: str) -> set[str]:
    """The names of all codecs, also of those inside a shard."""
    if not isinstance(codecs, list):
        raise UserError(f"{source}: codecs must be a list")
    names: set[str] = set()
    for codec in codecs:
        name = codec.get("name") if isinstance(codec, dict) else None
        if not isinstance(name, str):
            raise UserError(f"{source}: a codec without a name")
        names.add(name)
        inner = codec.get("configuration") or {}
        for key in ("codecs", "index_codecs"):
            if isinstance(inner, dict) and key in inner:
                names |= _codec_names(inner[key], source)
    return names


def _without_level(value: Any) -> Any:
    """A copy without the compression levels: they do not matter to a reader."""
    if isinstance(value, list):
        return [_without_level(entry) for entry in value]
    if isinstance(value, dict):
        return {key: _without_level(entry) for key, entry in value.items() if key != "level"}
    return value


def _has_bool(value: Any) -> bool:
    """Python says `1 == True`; JSON does not: a shape of `true` is not a shape of 1."""
    if isinstance(value, list):
        return any(map(_has_bool, value))
    if isinstance(value, dict):
        return any(map(_has_bool, value.values()))
    return isinstance(value, bool)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
