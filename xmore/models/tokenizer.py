"""The files of a model's tokenizer, which its texts' features depend on as on its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xmore.files.digests import digest_file, digest_of
from xmore.models.folder import text_folder

SUFFIXES = (".json", ".txt", ".model", ".jinja")  # of a folder's files, without any weights
HUB_FILES = (  # what transformers looks for in a repository
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)


def tokenizer_digest(folder: Path | None, text_cfg: dict[str, Any]) -> str | None:
    """Return the sha256 over a tokenizer's files; None for open_clip's built-in tokenizer.

    `folder` is the model's, if it has one. A folder's files include the text tower's config. None
    also for a tokenizer of the hub that is neither in the hub's cache nor can be downloaded.
    Raises ModelError.
    """
    files: dict[str, Path] = {}
    for key in ("hf_model_name", "hf_tokenizer_name"):
        place = text_folder(folder, text_cfg, key) if folder else None
        if place:
            found = [path for path in place.iterdir() if path.suffix in SUFFIXES]
            files |= {f"{key}/{path.name}": path for path in found if path.is_file()}
        elif key == "hf_tokenizer_name" and text_cfg.get(key):
            files |= _from_hub(text_cfg[key])
    if not files:
        return None
    return digest_of({name: digest_file(path) for name, path in sorted(files.items())})


def _from_hub(repository: str) -> dict[str, Path]:
    """Return a tokenizer's files by their names: from the hub's cache, else downloaded."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    found = {}
    for name in HUB_FILES:
        try:
            path = try_to_load_from_cache(repository, name)
            if path is None:  # neither the file nor its absence is known
                path = hf_hub_download(repository, name)
        except LocalEntryNotFoundError:  # no network: the other files are not there either
            break
        except EntryNotFoundError:
            continue
        except Exception:  # whatever the hub's client raises; loading the tokenizer reports it
            break
        if isinstance(path, str):
            found[name] = Path(path)
    return found
