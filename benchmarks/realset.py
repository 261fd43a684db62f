"""Every method on real photos and captions, where they are: XMORE_REALSET names their folder.

    XMORE_REALSET=/data/realset .venv/bin/python benchmarks/realset.py [FOLDER]

Four test sets (PACS' domains, 140 images and 7 classes each) and a memory of some 4,000 captioned
photos. Artifacts, memories and the trained fusion go to FOLDER, by default a temporary one; the
table is that of `configs/demo-all-methods.yaml`, whose models and options it takes over.
"""

from __future__ import annotations
