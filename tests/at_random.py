"""Random unit vectors, and open_clip's own architectures at random weights."""

import numpy as np
import open_clip
import torch

from xmore.models.encoder import OpenClipEncoder
from xmore.models.precision import convert, dtype_of
from xmore.models.spec import ModelCard, ModelSpec


def unit(rng, *shape):
    """float32 rows of length 1."""
    rows = rng.normal(size=shape)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


class Encoder:
    """A model at random weights, as OpenClipEncoder shows it."""

    device, pad_id, at_most = "cpu", 0, None
    in_parts, computing = OpenClipEncoder.in_parts, OpenClipEncoder.computing

    def __init__(self, name, precision="fp32"):
        torch.manual_seed(0)
        self.card = ModelCard(
            "random", ModelSpec.from_name("RN50/openai"), {"precision": precision}
        )
        self.dtype = dtype_of(precision, "cpu")
        self.model = open_clip.create_model(name).eval()
        convert(self.model, precision, "cpu")
        self.tokenizer = open_clip.get_tokenizer(name)

    def normalise(self, pixels):
        return pixels.permute(0, 3, 1, 2).float() / 255
