"""RECO's trained layers on disk, as `xmore reco-train` writes them.

<output>/reco.safetensors   the layers' weights
<output>/reco.json          their origin and sha256; written last: it marks the checkpoint complete
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from xmore.files.digests import digest_file
from xmore.files.errors import ModelError
from xmore.files.paths import write_whole
from xmore.files.sealed import sealed
from xmore.methods.reco.layers import Reco
from xmore.methods.reco.recipe import SIDES
from xmore.store.contracts import RecoFile, read_contract

WEIGHTS, FACTS = "reco.safetensors", "reco.json"


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
        data = (self.folder / WEIGHTS).read_bytes()
        model = Reco(self.facts["dim"], self.facts["parameters"]["heads"], self.sides)
        try:
            model.load_state_dict(load(data))
        except Exception as error:  # safetensors and torch each raise their own
            raise ModelError(f"{self.folder / WEIGHTS}: cannot be read ({error}).") from error
        return model.eval()

    @property
    def sides(self) -> tuple[str, ...]:
        sides = self.facts["parameters"]["sides"]
        return SIDES if sides == "both" else (sides,)


def write_checkpoint(folder: Path, model: torch.nn.Module, facts: dict[str, Any]) -> None:
    """Write a training's result to `folder`; an existing one is replaced."""
    tensors = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    write_whole(folder / WEIGHTS, save(tensors))
    facts = facts | {"weights_sha256": digest_file(folder / WEIGHTS)}
    write_whole(folder / FACTS, sealed(facts))


def read_checkpoint(folder: Path) -> RecoCheckpoint:
    """Read the checkpoint in `folder`. Raises ModelError if it is absent or incomplete."""
    todo = "Train it with `xmore reco-train CONFIG`."
    try:
        facts = read_contract(folder / FACTS, RecoFile)
        sha256 = digest_file(folder / WEIGHTS)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}"
        raise ModelError(f"{folder}: no checkpoint of `reco` ({what}). {todo}") from error
    except ValueError as error:
        raise ModelError(f"{folder / FACTS}: not a checkpoint's facts ({error}). {todo}") from error
    if sha256 != facts["weights_sha256"]:
        raise ModelError(f"{folder / WEIGHTS}: its bytes differ from those of the training. {todo}")
    return RecoCheckpoint(folder, facts)
