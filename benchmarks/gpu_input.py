"""What `gpu.py` measures on: models at random weights, JPEGs, a memory near given features."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from multiprocessing import get_context
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

MODELS = ("ViT-L-14", "ViT-B-16", "ViT-B-32", "RN50")
SHARD = 250_000  # rows of a file of the memory
REPEATS = 4  # how often a caption is in the memory
NEAR = 0.3  # distance of a row to a query, in typical distances between two queries
JPEG = (500, 375)
WORDS = ("red", "small", "photo", "of", "a", "house", "in", "the", "snow", "market", "old", "car")


def write_models(folder: Path, tiny: bool) -> dict[str, Path]:
    """Write a folder for each of MODELS, at random weights -> name to folder."""
    folders = {name: folder / name for name in MODELS}
    at_once(write_model, [(name, place, tiny) for name, place in folders.items()])
    return folders


def write_model(name: str, folder: Path, tiny: bool) -> None:
    """Write open_clip's config and random weights."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    config = deepcopy(open_clip.get_model_config(name))
    if tiny:
        cut(config)
    folder.mkdir(parents=True)
    (folder / f"random-{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"random-{name}.json")
    torch.manual_seed(0)
    model = open_clip.create_model(f"random-{name}")
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))


def cut(config: dict[str, Any]) -> None:
    """Cut the towers of a model to one narrow layer."""
    vision = config["vision_cfg"]
    residual = isinstance(vision["layers"], list)
    vision |= {"layers": [1] * 4, "width": 16} if residual else {"layers": 1, "width": 64}
    vision["image_size"] = 64 if residual else 2 * vision["patch_size"]
    config["text_cfg"] |= {"layers": 1, "width": 64, "heads": 1}


def write_images(folder: Path, count: int, classes: int) -> list[str]:
    """Write JPEGs of JPEG, in a folder for each class, and the dataset's card -> their names."""
    names = [f"subject {i % classes:04d}/{i:05d}.jpg" for i in range(count)]
    for label in range(classes):
        (folder / f"subject {label:04d}").mkdir(parents=True)
    spans = np.array_split(np.arange(count), max(1, count // 64))
    at_once(write_jpegs, [(folder, [names[i] for i in span], int(span[0])) for span in spans])
    folder.with_suffix(".yaml").write_text(f"name: generated\nroot: {folder}\n")
    return names


def write_jpegs(folder: Path, names: list[str], first: int) -> None:
    """Write images that take as long to decode as photos: coarse and fine structure."""
    for number, name in enumerate(names, first):
        random = np.random.default_rng(number)
        layers = [
            np.asarray(
                Image.fromarray(random.integers(0, 256, (h, w, 3), np.uint8)).resize(JPEG), float
            )
            for h, w in ((6, 8), (24, 32), (188, 250))
        ]
        pixels = np.average(layers, 0, (0.5, 0.3, 0.2)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name, quality=90)


def write_memory(folder: Path, features: np.ndarray, rows: int) -> None:
    """Write a clip-retrieval folder: rows near (Q, D) unit features of queries, drawn at random.

    Random weights give all images nearly one feature, so that rows drawn elsewhere would be the
    same neighbours to every query.
    """
    for kind in ("img_emb", "metadata"):
        (folder / kind).mkdir(parents=True)
    apart = np.median(np.linalg.norm(features - np.roll(features, 1, 0), axis=1))
    size = NEAR * apart / features.shape[1] ** 0.5
    starts = range(0, rows, SHARD)
    near = [(folder, features, n, min(SHARD, rows - at), size) for n, at in enumerate(starts)]
    at_once(write_shard, near)


def write_shard(folder: Path, features: np.ndarray, number: int, rows: int, size: float) -> None:
    """Write a file of embeddings and one of captions; each caption is in REPEATS rows."""
    random = np.random.default_rng([7, number])
    noise = random.standard_normal((rows, features.shape[1]), np.float32)
    near = features[random.integers(0, len(features), rows)] + np.float32(size) * noise
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    np.save(folder / "img_emb" / f"img_emb_{number:04d}.npy", near.astype(np.float16))
    kinds = max(1, rows // REPEATS)
    words = [" ".join(some) for some in random.choice(WORDS, (kinds, 11))]
    captions = [f"{words[i]} {number}-{i}" for i in random.integers(0, kinds, rows).tolist()]
    urls = [f"http://a.example/{number}/{i}.jpg" for i in range(rows)]
    path = folder / "metadata" / f"metadata_{number:04d}.parquet"
    pq.write_table(pa.table({"url": urls, "caption": captions}), path, row_group_size=50_000)


def texts_of(count: int) -> list[str]:
    """Return texts as the memory's captions."""
    random = np.random.default_rng(3)
    return [f"{' '.join(some)} {i}" for i, some in enumerate(random.choice(WORDS, (count, 11)))]


def at_once(work: Callable[..., None], calls: list[tuple[Any, ...]]) -> None:
    """Make the calls, on all cores if there are many of those."""
    cores = cpu_count() or 1
    if cores < 8:
        for call in calls:
            work(*call)
        return
    with get_context("spawn").Pool(min(cores, len(calls))) as pool:
        pool.starmap(work, calls)
