"""Image features on the CPU beside CLIP_benchmark's loop: the same weights, the same photos.

    python benchmarks/peer_on_cpu.py [ROUNDS]

ViT-B-32 at random weights, 600 of the demo's photos as JPEGs of 500x375, 1,000 classes. Each side
has a process of its own, as with its users: in one process, CLIP_benchmark's passes would be
faster, too, since loading one of our models makes glibc keep the memory of activations. The sides
alternate, so that all run under the same load. CLIP_benchmark is measured with one decoding worker
and with one per core; the ratio is to the faster one of a round. Needs the demo's images.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import open_clip
import torch
from peer import BATCH, Photos, peers_loop
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

from xmore.files.paths import PROJECT_ROOT
from xmore.images.readers import Files, ListedImages
from xmore.models.encoder import OpenClipEncoder
from xmore.models.features import encode_images
from xmore.models.spec import ModelSpec, describe_model

MODEL, IMAGES, CLASSES = "ViT-B-32", 600, 1000
NAMES = [f"{i}.jpg" for i in range(IMAGES)]

Run = Callable[[], np.ndarray]
"""Encodes all photos -> their logits (IMAGES, CLASSES)."""


def main() -> None:
    """Measure all sides in turn; print each round, and the median ratio."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    workers = sorted({1, os.cpu_count() or 1})
    starts = {"ours": our} | {f"theirs, workers {n}": partial(peer, n) for n in workers}
    with tempfile.TemporaryDirectory() as scratch:
        prepare(Path(scratch))
        sides = {name: Side(start, Path(scratch)) for name, start in starts.items()}
        print(f"{IMAGES} photos, {MODEL}, {torch.get_num_threads()} cores; {peers_loop()[0]}")
        answers = {name: side.run()[1].argmax(1) for name, side in sides.items()}  # and warms up
        for name in answers:
            print(f"  {name}: {(answers[name] != answers['ours']).sum()} other answers than ours")
        ratios = []
        for number in range(rounds):
            order = list(sides) if number % 2 == 0 else list(sides)[::-1]
            seconds = {name: sides[name].run()[0] for name in order}
            ratios.append(min(seconds[name] for name in sides if name != "ours") / seconds["ours"])
            speeds = ", ".join(f"{name}: {IMAGES / seconds[name]:.2f}" for name in sides)
            print(f"  images/s: {speeds}; ratio {ratios[-1]:.3f}", flush=True)
        print(f"  median ratio {statistics.median(ratios):.3f}")
        for side in sides.values():
            side.end()


class Side:
    """A process that runs when it is told to."""

    def __init__(self, start: Callable[[Path], Run], folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.here, there = context.Pipe()
        context.Process(target=serve, args=(there, start, folder)).start()

    def run(self) -> tuple[float, np.ndarray]:
        """Return the seconds that a run took, and its logits."""
        self.here.send(True)
        return self.here.recv()

    def end(self) -> None:
        """Let the process end."""
        self.here.send(False)


def serve(there: Connection, start: Callable[[Path], Run], folder: Path) -> None:
    """Run as often as the other end says so."""
    run = start(folder)
    while there.recv():
        begun = time.perf_counter()
        logits = run()
        there.send((time.perf_counter() - begun, logits))


def prepare(folder: Path) -> None:
    """Write photos, weights and a classifier."""
    photos = sorted((PROJECT_ROOT / "data/demo/queries").rglob("*.jpg"))
    for i, name in enumerate(NAMES):
        photo = Image.open(photos[i % len(photos)]).convert("RGB")
        photo.resize((500, 375)).save(folder / name, quality=90)
    torch.manual_seed(0)
    save_file(open_clip.create_model(MODEL).state_dict(), folder / "weights.safetensors")
    classifier = torch.nn.functional.normalize(torch.randn(512, CLASSES), dim=0)
    save_file({"classifier": classifier}, folder / "classes.safetensors")


def our(folder: Path) -> Run:
    """Return a run of this project's features."""
    spec = ModelSpec(architecture=MODEL, checkpoint=folder / "weights.safetensors")
    encoder = OpenClipEncoder(describe_model(MODEL, spec, folder), "cpu")
    photos = ListedImages(Files(folder), NAMES, [None] * IMAGES)
    classifier = load_file(folder / "classes.safetensors")["classifier"].numpy()
    return lambda: 100 * encode_images(photos, encoder, BATCH).unit @ classifier


def peer(workers: int, folder: Path) -> Run:
    """Return a run of CLIP_benchmark's loop."""
    weights = str(folder / "weights.safetensors")
    model, _, transform = open_clip.create_model_and_transforms(MODEL, pretrained=weights)
    classifier = load_file(folder / "classes.safetensors")["classifier"]
    loader = DataLoader(Photos(folder, NAMES, transform), batch_size=BATCH, num_workers=workers)
    _, loop = peers_loop()

    def run() -> np.ndarray:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress
            logits, _ = loop(model.eval(), classifier, loader, "cpu", amp=False)
        return logits.numpy()

    return run


if __name__ == "__main__":
    main()
