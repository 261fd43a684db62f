"""Embedding's throughput as a share of bare forward passes: same model, same images, same run.

    python benchmarks/embedding.py [ROUNDS]

Bare: batches that are decoded already, one after the other through the model. Embedding: the
same images from their JPEG bytes in a tar, decoded by worker processes, as a re-index does it. The
two alternate, so that both meet the same load; the features are compared. Needs the demo's models.
"""

from __future__ import annotations

import io
import statistics
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from index_build.shards import TarImages
from xmore.config import ExecutionConfig
from xmore.encoders import OpenClipEncoder, pick_device
from xmore.features import encode_images
from xmore.images import decode_image
from xmore.models import ModelSpec, describe_model
from xmore.paths import PROJECT_ROOT

IMAGES, BATCH = 2048, 64


def main() -> None:
    """Print each round's ratio and the median."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    execution = ExecutionConfig(batch_size=BATCH)
    device = pick_device(execution.device)
    folder = PROJECT_ROOT / "data" / "models" / "lite0"
    with tempfile.TemporaryDirectory() as scratch:
        card = describe_model("lite0", ModelSpec(folder=folder, pooled=True), Path(scratch))
        encoder = OpenClipEncoder(card, device)
        source = pack(Path(scratch) / "images.tar")
        pixels = [
            torch.stack([encoder.preprocess(decode_image(source.read(i))) for i in span])
            for span in np.array_split(np.arange(IMAGES), IMAGES // BATCH)
        ]
        encode_images(source, encoder, execution)  # both are warm now, and the workers' server up
        bare_features = np.concatenate([encoder.encode_images(batch) for batch in pixels])
        ratios = []
        print(f"{IMAGES} images of the demo's memory, {device}, batches of {BATCH}")
        for _ in range(rounds):
            bare, _ = timed(lambda: [encoder.encode_images(batch) for batch in pixels])
            embedding, features = timed(lambda: encode_images(source, encoder, execution))
            ratios.append(bare / embedding)
            speeds = f"bare {IMAGES / bare:6.1f} images/s, embedding {IMAGES / embedding:6.1f}"
            print(f"{speeds} images/s, share {ratios[-1]:.3f}")
        same = np.abs(features.unit - bare_features).max()
        print(f"median share {statistics.median(ratios):.3f}; largest difference {same:.1e}")


def pack(path: Path) -> TarImages:
    """The demo's first IMAGES images as a tar, as img2dataset writes them."""
    images = sorted((PROJECT_ROOT / "data" / "demo" / "memory" / "images").iterdir())[:IMAGES]
    with tarfile.open(path, "w") as tar:
        for number, image in enumerate(images):
            member = tarfile.TarInfo(f"{number:08d}.jpg")
            data = image.read_bytes()
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with tarfile.open(path) as tar:
        return TarImages(path, [(member.offset_data, member.size) for member in tar])


def timed(work):
    """Seconds that `work` took, and what it gave."""
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


if __name__ == "__main__":
    main()
