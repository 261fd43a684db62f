"""Every method on real photos and captions, in the folder that XMORE_REALSET names.

    XMORE_REALSET=/data/realset .venv/bin/python benchmarks/realset.py FOLDER

Four test sets (PACS' domains: 7 classes, 140 images each) and a memory of some 4,000 captioned
photos. The memory is embedded twice: by the coarse model, and by the inference model for RECO,
whose layers are trained on it. Models, methods and options are those of
`configs/demo-all-methods.yaml`. All results stay in FOLDER: run the same command again to resume.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import yaml

from flows.benchmark import xmore_benchmark
from flows.cli.terminal.reco import show_trained
from flows.cli.terminal.runs import show_run
from flows.reco_train import xmore_reco_train
from flows.reindex import xmore_reindex
from xmore.config.load import change_config, load_config
from xmore.config.memory import ReindexConfig
from xmore.config.reco import RecoTrainConfig
from xmore.files.paths import PROJECT_ROOT

CONFIGS = PROJECT_ROOT / "configs"
DOMAINS = ("art_painting", "cartoon", "photo", "sketch")
TEXTS = Path(__file__).with_name("pacs-neighbours.jsonl")


def main() -> None:
    """Build the memories, train RECO, run the benchmark, print its leaderboard."""
    root, folder = os.environ.get("XMORE_REALSET"), Path(sys.argv[-1]).resolve()
    if not root or len(sys.argv) != 2:
        sys.exit(f"{__doc__}\nSet XMORE_REALSET and name one folder.")
    coarse, joint = (
        remember(Path(root), folder, name) for name in ("demo-memory", "demo-reco-memory")
    )
    training = load_config(CONFIGS / "demo-reco.yaml", RecoTrainConfig)
    training = training.model_copy(update={"memory": joint, "output": folder / "reco"})
    show_trained(xmore_reco_train.fn(training))
    changes = {
        "name": "realset",
        "datasets": [str(card(Path(root), folder, domain)) for domain in DOMAINS],
        "memory": str(coarse),
        "results": str(folder / "results"),
        "options.reco.checkpoint": str(folder / "reco"),
        "options.coder.texts": str(TEXTS),
        "options.views.limit": 16,  # of each domain
        "leaks.threshold": 0.95,
    }
    config = change_config(CONFIGS / "demo-all-methods.yaml", changes, folder)
    show_run(config.results, xmore_benchmark.fn(config), oracle=True)


def remember(root: Path, folder: Path, name: str) -> Path:
    """Build a memory of the real captions with the model of the demo's config `name`."""
    config = load_config(CONFIGS / f"{name}.yaml", ReindexConfig)
    images = {"folder": root / "memory", "captions": root / "memory" / "captions.parquet"}
    changes = {"memory": folder / name, "sources": [{"images": images}], "take_down": None}
    data = config.model_dump(mode="json", exclude_unset=True) | changes
    xmore_reindex.fn(ReindexConfig.model_validate(data))
    return folder / name


def card(root: Path, folder: Path, domain: str) -> Path:
    """Write the card of one domain."""
    path = folder / f"{domain}.yaml"
    text = {"name": domain, "root": str(root / "pacs" / domain)}
    path.write_text(yaml.safe_dump(text | {"expected": {"classes": 7, "images": 140}}))
    return path


if __name__ == "__main__":
    main()
