"""open_clip's lists of architectures and of files of weights, without the rest of open_clip.

To import that takes six seconds, which a misspelt name should not cost, nor a run that finds
everything computed already.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from xmore.files.errors import ModelError, meant

HUB_TIMEOUT = 5.0  # seconds to connect, and to respond


@cache
def pretrained() -> ModuleType:
    """Return open_clip's module of that name: its tags, and how their files are downloaded.

    It is loaded once more, as a part of a package of another name, which imports nothing itself.
    """
    beside = ModuleType("xmore_open_clip")
    beside.__path__ = [str(_folder())]
    sys.modules[beside.__name__] = beside
    # Only whether safetensors is there matters to the module; its real `torch` imports torch.
    unseen = "safetensors.torch" not in sys.modules
    sys.modules.setdefault("safetensors.torch", ModuleType("safetensors.torch"))
    try:
        module = import_module(f"{beside.__name__}.pretrained")
    finally:
        if unseen:
            del sys.modules["safetensors.torch"]
    module.__dict__["hf_hub_download"] = _of_the_hub
    return module


def _of_the_hub(repo_id: str, filename: str, **settings: Any) -> str:
    """Return a file of the hub's cache, else of the hub, which is asked once whether it is there.

    The hub's client would ask whether the cached file is the newest, and if nobody answers, six
    times, for 23 seconds a file.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return hf_hub_download(repo_id, filename, local_files_only=True, **settings)
    except LocalEntryNotFoundError:
        _ask_hub()
    return hf_hub_download(repo_id, filename, library_name="open_clip", **settings)


def _ask_hub() -> None:
    """Raise OSError if the hub cannot be reached; a process asks once."""
    from huggingface_hub import constants, get_session

    if not _failed:
        try:
            get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT)
        except OSError as error:  # as those of requests are
            _failed.append(f"{constants.ENDPOINT} cannot be reached ({type(error).__name__})")
    if _failed:
        raise OSError(_failed[0])


_failed: list[str] = []


def architecture_config(model: str, architecture: str) -> dict[str, Any]:
    """Return what open_clip's file of an architecture says. Raises ModelError if there is none.

    `model` is the name of the model, for the error.
    """
    files = {path.stem: path for path in (_folder() / "model_configs").glob("*.json")}
    if "open_clip" in sys.modules:  # which knows those, too, that were added to it
        from open_clip import get_model_config

        config = get_model_config(architecture)
    else:
        config = json.loads(files[architecture].read_text()) if architecture in files else None
    if config is None:
        raise ModelError(
            f"model `{model}`: open_clip has no architecture `{architecture}`."
            f"{meant(architecture, files)} See open_clip.list_models()."
        )
    return dict(config)


@cache
def _folder() -> Path:
    spec = find_spec("open_clip")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent
