"""A memory as clip-retrieval writes it, of given vectors: for methods that search one by text."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xmore.files.digests import digest_text
from xmore.methods.base import MethodRequest, ScoringContext
from xmore.methods.options import MethodOptions
from xmore.models.spec import ModelCard, ModelSpec

CARD = ModelCard("random", ModelSpec.from_name("RN50/openai"), {"weights_sha256": "0"})


def write_memory(folder: Path, rows: np.ndarray, shard_rows: int = 40) -> list[str]:
    """Write (N, D) vectors as float16, `shard_rows` a file; return the rows' memory_keys."""
    urls = [f"http://h/{i}.jpg" for i in range(len(rows))]
    for kind in ("img_emb", "metadata"):
        (folder / kind).mkdir(parents=True)
    for number, start in enumerate(range(0, len(rows), shard_rows)):
        span = slice(start, start + shard_rows)
        np.save(folder / "img_emb" / f"img_emb_{number:04d}.npy", rows[span].astype(np.float16))
        table = pa.table({"url": urls[span], "caption": ["a drawing"] * len(urls[span])})
        pq.write_table(table, folder / "metadata" / f"metadata_{number:04d}.parquet")
    return [digest_text(f"{url}\na drawing") for url in urls]


def stored(rows: np.ndarray) -> np.ndarray:
    """The vectors as a method reads them from such a memory, in float64."""
    return rows.astype(np.float16).astype(np.float64)


def context_over(
    memory: Path, texts: dict[str, np.ndarray], prompts: list[list[str]], tau: float,
    leaked: frozenset[str] = frozenset(), dataset: str = "any", **options,
) -> ScoringContext:  # fmt: skip
    """What a method is given under a model that is named `random`; `texts` has their features."""
    chosen = MethodOptions.model_validate({"memories": {CARD.name: memory}} | options)
    request = MethodRequest(dataset, 24, None, chosen, memory / "cache", model=CARD)
    names = [f"class {c}" for c in range(len(prompts))]

    def encode(wanted):
        return np.stack([texts[text] for text in wanted])

    return ScoringContext(request, names, prompts, tau, encode, lambda: None, leaked=lambda: leaked)
