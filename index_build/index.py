"""The memory's nearest-neighbour index, chosen, trained and tuned by autofaiss."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
from pathlib import Path
from typing import Any

from xmore.errors import SnapshotError
from xmore.paths import fsync_file


def build_index(folder: Path, index_key: str | None) -> dict[str, Any]:
    """Index `folder`/img_emb as `folder`/image.index -> its key and parameters.

    Inner product, as all features are unit vectors. `index_key` None lets autofaiss choose by
    size. Raises SnapshotError.
    """
    from autofaiss import build_index as autofaiss_build

    path, infos = folder / "image.index", folder / "image.infos.json"
    path.unlink(missing_ok=True)
    with contextlib.redirect_stderr(io.StringIO()):  # its bars cannot be switched off
        index, _ = autofaiss_build(
            embeddings=str(folder / "img_emb"),
            index_path=str(path),
            index_infos_path=str(infos),
            metric_type="ip",
            index_key=index_key,
            nb_cores=os.cpu_count(),
            verbose=logging.ERROR,
        )
    if index is None or not path.exists():
        # autofaiss logs what went wrong and returns None
        raise SnapshotError(
            f"{folder}: autofaiss could not build the index"
            + (f" `{index_key}`; correct `index_key`" if index_key else "")
            + ". The embeddings are kept; run again to go on from them."
        )
    facts = json.loads(infos.read_text())
    infos.unlink()
    fsync_file(path)
    return {"key": facts["index_key"], "parameters": facts["index_param"]}
