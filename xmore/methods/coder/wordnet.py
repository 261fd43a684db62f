"""The senses of a word in WordNet, through NLTK if it and its data are installed."""

from __future__ import annotations

from collections.abc import Callable

from xmore.files.errors import ConfigError
from xmore.methods.coder.generate import Sense


def open_wordnet() -> tuple[Callable[[str], list[Sense]], str]:
    """Return a look-up of a word's senses as a noun, and WordNet's name and version.

    NLTK is not a dependency of this project, and nothing is downloaded. Raises ConfigError.
    """
    try:
        from nltk.corpus import wordnet

        version = wordnet.get_version()
    except ImportError as error:
        raise ConfigError(
            "synonyms come from WordNet through NLTK, which is not installed. Run `pip install "
            "nltk` and `python -m nltk.downloader wordnet`."
        ) from error
    except LookupError as error:
        raise ConfigError(
            "NLTK has no data of WordNet. Run `python -m nltk.downloader wordnet`, or set "
            "NLTK_DATA to the folder that contains corpora/wordnet."
        ) from error

    def senses(word: str) -> list[Sense]:
        found = wordnet.synsets(word.replace(" ", "_"), pos="n")
        return [Sense(each.definition(), each.lemma_names()) for each in found]

    return senses, f"WordNet {version} through NLTK"
