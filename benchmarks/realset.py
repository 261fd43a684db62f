"""Every method on real photos and captions, in the folder that XMORE_REALSET names.

    XMORE_REALSET=/data/realset .venv/bin/python benchmarks/realset.py FOLDER

Four test sets (PACS' domains, 7 classes, 140 images each: `pacs/<domain>/<class>/`) and a memory of
some 4,000 captioned photos (`memory/captions.parquet`, with the columns path and caption). The
memory is embedded twice: by the coarse model, and by the inference model for `reco`, `tip-x` and
`ra-tta`. RECO's layers are trained on it. Methods and options are those of `configs/rivals.yaml`,
with `reco`, under Lite2. The sentences on the seven classes that lie beside this file were written
for this project by an AI model (Claude), before any run. All results stay in FOLDER: run the same
command again to resume.
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
from xmore.config.benchmark import BenchmarkConfig
from xmore.config.load import change_config, load_config
from xmore.config.memory import ReindexConfig
from xmore.config.reco import RecoTrainConfig
from xmore.files.paths import PROJECT_ROOT

CONFIGS = PROJECT_ROOT / "configs"
DOMAINS = ("art_painting", "cartoon", "photo", "sketch")
TEXTS = Path(__file__).with_name("pacs-neighbours.jsonl")
SENTENCES = Path(__file__).with_name("pacs-descriptions.json")


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
    rivals = load_config(CONFIGS / "rivals.yaml", BenchmarkConfig)
    changes = {
        "name": "realset",
        "datasets": [str(card(Path(root), folder, domain)) for domain in DOMAINS],
        "memory": str(coarse),
        "results": str(folder / "results"),
        "roles.inference": ["lite2"],
        "methods": [*rivals.methods, "reco"],
        "options.reco.checkpoint": str(folder / "reco"),
        "options.memories": {"lite2": str(joint)},
        "options.coder.texts": str(TEXTS),
        "options.ratta.descriptions": str(SENTENCES),
        "options.views.limit": 16,  # of each domain
        "leaks.threshold": 0.95,
    }
    config = change_config(CONFIGS / "rivals.yaml", changes, folder)
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
