"""Model folders from a hub: a snapshot of one commit, and of it only what is read: configuration, preprocessing, safetensors, model card.

What was fetched once is taken from the hub client's own cache afterwards, without a network. `transformers` and its hub client are an
extra; this is the one place that says how to install them.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from goalward import UserError
from goalward.wm.encoders.tensor_files import weight_files

_WANTED = ("config.json", "*.safetensors", "model.safetensors.index.json", "preprocessor_config.json", "video_preprocessor_config.json")
_PREPROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json")
_CARDS = ("README.md",)


def require(module: str) -> Any:
    """Imports a module of the extra `hf`.

    Raises:
        UserError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = error.name or module
        raise UserError(f"pretrained encoders need the package {missing}, which is not installed; pip install goalward[hf]") from error


def fetch_snapshot(repository: str, revision: str) -> Path:
    """Gets the folder of a model.

    Args:
        repository: owner/name.
        revision: A commit.

    Raises:
        UserError: No network, no such model or commit, or one whose conditions have not been accepted.
    """
    hub, errors = require("huggingface_hub"), require("huggingface_hub.errors")
    wanted = [*_WANTED, *_CARDS]
    try:
        folder = Path(hub.snapshot_download(repository, revision=revision, allow_patterns=wanted, local_files_only=True))
        # Another program may have fetched less: without the preprocessor's file or the card, preprocessing and licence would be guessed.
        beside = any((folder / name).is_file() for name in _PREPROCESSORS) and all((folder / name).is_file() for name in _CARDS)
        if (folder / "config.json").is_file() and weight_files(folder) and beside:
            return folder
    except (errors.LocalEntryNotFoundError, OSError, ValueError):
        pass  # not in the cache, or not all of it (UserError is a ValueError)
    where = f"encoder {repository}@{revision[:12]}"
    try:
        # One question first: the download itself would try again and again, for half a minute, where there is no network.
        hub.HfApi().model_info(repository, revision=revision, timeout=20)
        return Path(hub.snapshot_download(repository, revision=revision, allow_patterns=wanted))
    except errors.GatedRepoError as error:
        raise UserError(f"{where}: its conditions have not been accepted; do so on its hub page and log in with `hf auth login`") from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{where}: the hub has no such commit of it; copy the commit from the page's history") from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(f"{where}: the hub has no such model, or it is private; check the id") from error
    except Exception as error:  # whatever the client's network layer raises
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{where}: not in the local cache, and the hub cannot be reached ({type(error).__name__}: {reason}); "
            "download it where there is a network and give the folder instead"
        ) from error
