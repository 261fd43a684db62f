"""Embedding's throughput as a share of bare forward passes: same model, same images, same run.

    python benchmarks/embedding.py [ROUNDS]

Bare: decoded batches, one after the other through the model. Embedding: the same images from
their JPEG bytes in a tar, decoded by worker processes, as in a re-index. The two alternate, so
that both run under the same load, and their features are compared. The demo's two towers are
light, so decoding weighs more with them than with CLIP's. Therefore ViT-B-32, the paper's coarse
model, is measured too, with random weights. Needs the demo's models (`make demo`).
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
import open_clip
import torch
from safetensors.torch import save_file

from xmore.files.paths import PROJECT_ROOT
from xmore.images.decode import decode_image
from xmore.images.readers import ListedImages, Tars
from xmore.models.device import pick_device
from xmore.models.encoder import OpenClipEncoder
from xmore.models.features import encode_images
from xmore.models.spec import ModelSpec, describe_model

BATCH = 64
DATA = PROJECT_ROOT / "data"


def main() -> None:
    """Measure each model and print the shares."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = Path(scratch) / "ViT-B-32.safetensors"
        torch.manual_seed(0)
        save_file(open_clip.create_model("ViT-B-32").state_dict(), checkpoint)
        for name, spec, images in (
            ("lite0, pooled", ModelSpec(folder=DATA / "models" / "lite0", pooled=True), 2048),
            ("lite2", ModelSpec(folder=DATA / "models" / "lite2"), 2048),
            ("ViT-B-32", ModelSpec(architecture="ViT-B-32", checkpoint=checkpoint), 1024),
        ):
            measure(name, spec, images, rounds, Path(scratch))


def measure(name: str, spec: ModelSpec, images: int, rounds: int, scratch: Path) -> None:
    """Print one model's share in each round, and the median."""
    device = pick_device("auto")
    encoder = OpenClipEncoder(describe_model(name, spec, scratch), device)
    source = pack(scratch / "images.tar", images)
    batches = [
        encoder.normalise(torch.stack([decoded(encoder, source, i) for i in span]))
        for span in np.array_split(np.arange(images), images // BATCH)
    ]
    encode_images(source, encoder, BATCH)  # starts the workers' server
    bare_features = np.concatenate([encoder.encode_images(batch) for batch in batches])
    shares = []
    print(f"{name}, {device}: {images} images, batches of {BATCH}")
    for _ in range(rounds):
        bare, _ = timed(lambda: [encoder.encode_images(batch) for batch in batches])
        embedding, features = timed(lambda: encode_images(source, encoder, BATCH))
        shares.append(bare / embedding)
        speeds = f"bare {images / bare:6.1f} images/s, embedding {images / embedding:6.1f} images/s"
        print(f"  {speeds}, share {shares[-1]:.3f}", flush=True)
    same = np.abs(features.unit - bare_features).max()
    print(f"  median share {statistics.median(shares):.3f}; largest difference {same:.1e}")


def pack(path: Path, count: int) -> ListedImages:
    """Write the first `count` images of the demo's memory as a tar, as img2dataset does."""
    images = sorted((DATA / "demo" / "memory" / "images").iterdir())[:count]
    with tarfile.open(path, "w") as tar:
        for number, image in enumerate(images):
            member = tarfile.TarInfo(f"{number:08d}.jpg")
            data = image.read_bytes()
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with tarfile.open(path) as tar:
        places = {m.name: (path.name, m.offset_data, m.size) for m in tar}
    return ListedImages(Tars(path.parent, places), list(places), [None] * len(places))


def decoded(encoder: OpenClipEncoder, source: ListedImages, i: int) -> torch.Tensor:
    """Decode one image -> (H, W, 3) uint8."""
    return torch.from_numpy(np.array(encoder.resize(decode_image(source.read(i)))))


def timed(work):
    """Return the seconds that `work` took, and its result."""
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


if __name__ == "__main__":
    main()
