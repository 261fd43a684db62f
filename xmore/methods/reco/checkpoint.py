"""RECO's trained layers on disk, as `xmore reco-train` writes them.

<output>/reco-<sha256>.safetensors   the layers' weights; `reco.safetensors` of older versions
<output>/reco.json                   their origin and sha256; written last: it names what is read
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from xmore.files.digests import digest_file
from xmore.files.errors import ModelError, is_shortage
from xmore.files.paths import write_whole
from xmore.files.sealed import sealed
from xmore.methods.reco.layers import Reco
from xmore.methods.reco.recipe import SIDES
from xmore.store.contracts import RecoFile, read_contract

FACTS = "reco.json"


@dataclass(frozen=True)
class RecoCheckpoint:
    """The result of a training."""

    folder: Path
    facts: Mapping[str, Any]  # reco.json

    @property
    def snapshot(self) -> tuple[Path, str]:
        """The memory on which it was trained, and the snapshot's name."""
        return Path(self.facts["memory"]), self.facts["snapshot"]["name"]

    def layers(self) -> Reco:
        """Return the trained model on the CPU. Raises ModelError if its file is damaged."""
        path = weights_of(self.folder, self.facts["weights_sha256"])
        data = path.read_bytes()
        model = Reco(self.facts["dim"], self.facts["parameters"]["heads"], self.sides)
        try:
            model.load_state_dict(load(data))
        except Exception as error:  # safetensors and torch each raise their own
            raise ModelError(f"{path}: cannot be read ({error}).") from error
        return model.eval()

    @property
    def sides(self) -> tuple[str, ...]:
        sides = self.facts["parameters"]["sides"]
        return SIDES if sides == "both" else (sides,)


def write_checkpoint(folder: Path, model: torch.nn.Module, facts: dict[str, Any]) -> None:
    """Write a training's result to `folder`; an existing one is replaced at once."""
    tensors = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    data = save(tensors)
    sha256 = hashlib.sha256(data).hexdigest()
    write_whole(folder / _name(sha256), data)
    write_whole(folder / FACTS, sealed(facts | {"weights_sha256": sha256}))


def weights_of(folder: Path, sha256: str) -> Path:
    """Return the file of the weights that have this sha256, by its name."""
    path = folder / _name(sha256)
    return path if path.exists() else folder / "reco.safetensors"


def clear_replaced(folder: Path) -> None:
    """Delete what replaced checkpoints and killed trainings left; needs the folder's lock."""
    kept = weights_of(folder, read_checkpoint(folder).facts["weights_sha256"])
    for path in (*folder.glob("reco*.safetensors"), *folder.glob(".reco*.tmp")):
        if path != kept:
            path.unlink()


def read_checkpoint(folder: Path) -> RecoCheckpoint:
    """Read the checkpoint in `folder`. Raises ModelError if it is absent or incomplete."""
    todo = "Train it with `xmore reco-train CONFIG`."
    try:
        facts = read_contract(folder / FACTS, RecoFile)
        path = weights_of(folder, facts["weights_sha256"])
        sha256 = digest_file(path)
    except OSError as error:
        if is_shortage(error):
            raise
        what = f"{error.filename}: {error.strerror}"
        raise ModelError(f"{folder}: no checkpoint of `reco` ({what}). {todo}") from error
    except ValueError as error:
        raise ModelError(f"{folder / FACTS}: not a checkpoint's facts ({error}). {todo}") from error
    if sha256 != facts["weights_sha256"]:
        raise ModelError(f"{path}: its bytes differ from those of the training. {todo}")
    return RecoCheckpoint(folder, facts)


def _name(sha256: str) -> str:
    return f"reco-{sha256[:16]}.safetensors"
