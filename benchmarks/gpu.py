"""This project on a GPU beside bare forward passes and CLIP_benchmark, in one run.

    PYTHONPATH=. python benchmarks/gpu.py [FILE.json] [--small]

Models are at random weights, images are generated JPEGs of 500x375; nothing is downloaded. Prints a
line a figure and writes all to FILE.json (default gpu.json) after each one, so that a run that is
stopped leaves what it has measured. Made to take at most six minutes on a GPU, two without one.

1. Images: bare forward passes, one call of `encode_images`, the stage `query_embeddings` in parts
   of 1,024, decoding alone with the same workers, and CLIP_benchmark's loop with amp.
2. Search: 1,024 queries in an adopted memory of 1,000,000 rows, first and again, beside a resident
   product with top-k.
3. Texts: bare passes over 77 tokens, `encode_texts`, and the tokenizer alone.
4. TPT at 1,000 classes: an image at a time in float32, as it once was, and 16 together.
5. A whole benchmark: 8,192 images, four models, K = 128, M = 16; the cost of each stage, and from
   it the hours of ImageNet and of the paper's fifteen test sets.

Without a GPU, or with --small, everything is small and towers have one narrow layer: that shows
that it runs, and its figures mean nothing. It needs torch, torchvision, numpy, scipy, pyarrow,
pandas, statsmodels, Pillow, PyYAML, safetensors, timm, tokenizers and transformers. open_clip,
ftfy, wcwidth, pydantic, pydantic-core, annotated-types and typing-inspection can travel as wheels,
and so can clip_benchmark: without it, a loop as its own is measured, which the lines say. DuckDB
and Prefect need not be there: outside a flow run each stage is a plain function, and part 5 calls
them in the order of the flow `xmore-benchmark`, which adds a record of the run and a report.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    from gpu_parts import main  # not above: processes that decode import this file, too

    given = [argument for argument in sys.argv[1:] if argument != "--small"]
    main(Path(given[0] if given else "gpu.json"), "--small" in sys.argv)
