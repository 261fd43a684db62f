"""The parts of `gpu.py`: each measures one thing, and adds its figures."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import gpu_input
import gpu_whole
import numpy as np
import open_clip
import torch
from gpu_world import FULL, SMALL, Figures, World
from peer import BATCH, Photos, peers_loop
from torch.nn.functional import normalize
from torch.utils.data import DataLoader

from tasks.query_embeddings import query_embeddings
from xmore.memory.adopt import adopt
from xmore.memory.search import Searcher
from xmore.memory.snapshot import Snapshot
from xmore.methods.tpt import tune
from xmore.models import decoding
from xmore.models.features import decoder_of, encode_images, encode_texts
from xmore.models.prompt_tuning import CHUNK, PromptedClasses

PRECISIONS = ("fp32", "bf16")
VIEWS = 6  # a tenth of 64 augmented views, which TPT keeps


def images(world: World) -> None:
    """Measure image features under each model, in each precision."""
    listed = world.inputs.queries(world.size.images, world.workers)
    decoding_alone(world)
    for name in gpu_input.MODELS:
        image_features(world, listed, name, "fp32")
        peer(world, name)  # while that model is loaded
        image_features(world, listed, name, "bf16")


def decoding_alone(world: World) -> None:
    """Measure the workers without a model: all resize to 224 x 224."""
    encoder, source, count = world.encoder("ViT-L-14", "fp32"), *world.source(world.size.images)
    decoder = decoder_of(encoder, world.batch("ViT-L-14", "fp32"), world.workers)
    alone = f"images, decoding alone, {world.workers} workers"
    world.rate(alone, count, lambda: sum(1 for _ in decoder([source], count)))


def image_features(world: World, listed: Any, name: str, precision: str) -> None:
    """Measure bare passes, a call of `encode_images`, and the stage."""
    encoder, batch = world.encoder(name, precision), world.batch(name, precision)
    source, count = world.source(world.size.images)
    title, card = f"images, {name}, {precision}", world.inputs.model(name, precision)
    pixels = torch.rand(batch, 3, *encoder.image_size, device=world.device)
    pixels = pixels.to(encoder.dtype, memory_format=torch.channels_last)
    with encoder.computing():
        bare = f"{title}, bare, batch {batch}"
        world.bare(bare, batch, lambda: encoder.model.encode_image(pixels))
    call = f"{title}, one call"
    world.rate(call, count, lambda: encode_images(source, encoder, batch, world.workers))
    world.rate(f"{title}, as the stage", count, lambda: query_embeddings(*listed, card))


def peer(world: World, name: str) -> None:
    """Measure CLIP_benchmark's loop: its batch size, amp on a GPU, as many workers and half."""
    theirs, run = peers_loop()
    encoder, folder = world.encoder(name, "fp32"), world.inputs.folder / "images"
    model = deepcopy(encoder.model).to(memory_format=torch.contiguous_format)
    transform = open_clip.image_transform(
        encoder.image_size, is_train=False, mean=encoder.mean, std=encoder.std
    )
    photos = Photos(folder, world.inputs.images[: world.size.images], transform)
    dim = encoder.model.text_projection.shape[1]
    classifier = normalize(torch.randn(dim, world.size.classes, device=world.device), dim=0)
    amp = world.device != "cpu"
    for workers in sorted({world.workers, max(1, world.workers // 2)}):
        loader = DataLoader(photos, batch_size=BATCH, num_workers=workers)
        what = f"images, {name}, {theirs}, {'amp' if amp else 'float32'}, {workers} workers"
        with contextlib.redirect_stderr(io.StringIO()):  # its progress
            _, seconds = world.timed(run, model, classifier, loader, world.device, amp)
        world.figures.add(what, len(photos) / seconds, "a second")


def search(world: World) -> None:
    """Write the memory, adopt it, and search it exactly, beside a product with top-k."""
    size, figures = world.size, world.figures
    encoder, batch = world.encoder("ViT-B-32", "bf16"), world.batch("ViT-B-32", "bf16")
    source, _ = world.source(size.queries)
    features = encode_images(source, encoder, batch, world.workers).unit
    gpu_input.write_memory(world.inputs.memory, features, size.rows)
    snapshot, seconds = world.timed(adopt, world.inputs.memory, world.inputs.cache)
    figures.add(f"search, adopting {size.rows:,} rows (hashes, keys, captions)", seconds, "s")
    queries, k = features[: size.searched], size.candidates
    searcher = Searcher(snapshot, True, device=world.device)
    for which in ("with copying the memory", "the memory on the device"):
        _, seconds = world.timed(searcher, queries, k)
        figures.add(f"search, {len(queries):,} queries, {which}", seconds, "s")
    rows = resident(snapshot, world.device)
    wanted = torch.from_numpy(queries).to(world.device, rows.dtype)
    for _ in range(2):
        _, seconds = world.timed(lambda: (wanted @ rows.T).topk(k, 1))
    figures.add(f"search, {len(queries):,} queries, resident product and top-k", seconds, "s")


def resident(snapshot: Snapshot, device: str) -> torch.Tensor:
    """Return all rows on a device: float16, or float32 on a CPU."""
    rows = np.concatenate([np.load(shard.embeddings) for shard in snapshot.shards])
    return torch.from_numpy(rows).to(device, torch.float32 if device == "cpu" else torch.float16)


def texts(world: World) -> None:
    """Measure text features, and tokenizing alone."""
    some, encoder = gpu_input.texts_of(world.size.texts), world.encoder("ViT-B-32", "fp32")
    world.rate("texts, tokenizing alone", len(some), lambda: encoder.tokenizer(some))
    for name in ("ViT-B-32", "ViT-L-14"):
        for precision in PRECISIONS:
            text_features(world, some, name, precision)


def text_features(world: World, some: list[str], name: str, precision: str) -> None:
    """Measure bare passes over whole inputs, and `encode_texts`."""
    encoder, batch = world.encoder(name, precision), world.batch(name, precision)
    tokens = torch.randint(1, 49000, (batch, 77), device=world.device)
    title = f"texts, {name}, {precision}"
    with encoder.computing():
        world.bare(f"{title}, bare", batch, lambda: encoder.model.encode_text(tokens))
    world.rate(f"{title}, ours", len(some), lambda: encode_texts(some, encoder, batch))


def tuning(world: World) -> None:
    """Measure TPT: as it once was, an image at a time in chunks of 64 classes, and as it is."""
    names = [f"subject {i:04d}" for i in range(world.size.classes)]
    for precision, alone in (("fp32", True), ("fp32", False), ("bf16", False)):
        classes = PromptedClasses(world.encoder("ViT-B-16", precision), names)
        if alone:
            classes.chunk, classes.together = CHUNK, 1
        untuned = classes.features(classes.start[None])[0]
        random = torch.randn(world.size.tuned, VIEWS, untuned.shape[1], device=world.device)
        views = list(normalize(random, dim=-1))
        _, seconds = world.timed(tune_all, classes, untuned, views, 1 if alone else len(views))
        how = "an image at a time" if alone else f"{len(views)} images together"
        what = f"TPT, ViT-B-16, {precision}, {len(names):,} classes, {how}"
        world.figures.add(what, seconds / len(views), "s an image")


def tune_all(
    classes: PromptedClasses, untuned: torch.Tensor, views: list[torch.Tensor], together: int
) -> None:
    """Tune a context for each image, so many together, and encode the classes with it."""
    for first in range(0, len(views), together):
        classes.features(tune(classes, untuned, views[first : first + together], 100.0))


@contextlib.contextmanager
def timed_part(figures: Figures, name: str) -> Iterator[None]:
    """Add the seconds of a part of the run."""
    begun = time.perf_counter()
    yield
    figures.add(f"this part, {name}", time.perf_counter() - begun, "s")


def main(path: Path, small: bool) -> None:
    """Run all parts in a folder that is deleted at the end."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = SMALL if small or device == "cpu" else FULL
    if size is SMALL:
        decoding.FEW = 0  # so that worker processes decode here, too
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    figures = Figures(path, device=name, cores=os.cpu_count(), torch=torch.__version__,
                      towers="one narrow layer" if size.tiny else "whole")  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        with timed_part(figures, "inputs"):
            inputs = gpu_whole.write_inputs(Path(scratch), size)
        world = World(size, device, inputs, figures)
        for part in (images, search, texts, tuning, gpu_whole.whole):
            with timed_part(figures, part.__name__):
                part(world)
