"""The table of all methods: what a config can name, and the one order of all tables and plots.

A new method of ours is one module in this folder and one entry in METHODS, by which the flow, the
leaderboard and the config's validation find it. One from outside needs no entry:
docs/write-a-method.md shows an example.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from xmore.files.errors import ConfigError
from xmore.methods import (
    calip,
    calip_oracle,
    caption_ensemble,
    clip,
    confident_views,
    equal,
    tip_x,
    tpt,
    xmore,
    xmore_agreeing,
    xmore_product,
    xmore_similar,
    zero,
)
from xmore.methods.base import Method
from xmore.methods.coder import captions as coder_captions
from xmore.methods.coder import coder
from xmore.methods.coder import rerank as coder_rerank
from xmore.methods.outside import digest_of_file, from_file, from_package, installed, is_file
from xmore.methods.ra_tta import ra_tta
from xmore.methods.reco import reco
from xmore.methods.tda import oracle as tda_oracle
from xmore.methods.tda import tda
from xmore.methods.tda import views as tda_views
from xmore.methods.tda import views_oracle as tda_views_oracle

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        # The baseline.
        clip.METHOD,
        # Captions.
        caption_ensemble.METHOD,
        coder_captions.METHOD,
        # X-MoRe's family.
        equal.METHOD,
        xmore.METHOD,
        xmore_similar.METHOD,
        xmore_agreeing.METHOD,
        xmore_product.METHOD,
        # Others.
        calip.METHOD,
        calip_oracle.METHOD,
        confident_views.METHOD,
        tpt.METHOD,
        zero.METHOD,
        tda.METHOD,
        tda_views.METHOD,
        tda_oracle.METHOD,
        tda_views_oracle.METHOD,
        coder.METHOD,
        coder_rerank.METHOD,
        reco.METHOD,
        tip_x.METHOD,
        ra_tta.METHOD,
    )
}
PAPERS = ("clip", "caption-ensemble", "equal", "xmore")  # the default of the key `methods`


@dataclass(frozen=True)
class MethodRef:
    """A pointer to a method, which can be sent to a worker; there, too, it is the same source."""

    spec: str  # a name of METHODS or of an installed package's method, or a file's path
    sha256: str | None = None  # of the file

    @property
    def method(self) -> Method:
        """The method, loaded once a process. Raises XmoreError if it cannot be, or has changed."""
        if self.spec in METHODS:
            return METHODS[self.spec]
        return from_file(self.spec, self.sha256) if self.sha256 else from_package(self.spec)

    def __str__(self) -> str:
        return self.method.name


def method_refs(specs: Sequence[str]) -> tuple[MethodRef, ...]:
    """Load the methods that a config names, and return them in the order of tables and plots.

    Raises XmoreError if one cannot be loaded, or if two have the same name.
    """
    refs = [MethodRef(s, digest_of_file(Path(s)) if is_file(s) else None) for s in specs]
    named: dict[str, str] = {}
    for ref in refs:
        name = ref.method.name
        if ref.spec not in METHODS and name in METHODS:
            raise ConfigError(f"{ref.spec}: its name, `{name}`, is one of ours. Choose another.")
        if name in named:
            raise ConfigError(f"`methods`: {named[name]} and {ref.spec} are both named `{name}`.")
        named[name] = ref.spec
    return tuple(sorted(refs, key=lambda ref: _place(ref.method.name)))


def is_known(spec: str) -> bool:
    """Return whether a config can name a method so; a file may still be absent or wrong."""
    return spec in METHODS or is_file(spec) or spec in installed()


def known_methods() -> Iterable[str]:
    """Return all names: ours, then those of installed packages."""
    return dict.fromkeys([*METHODS, *sorted(installed())])


def _place(name: str) -> tuple[int, str]:
    ours = list(METHODS)
    return (ours.index(name) if name in METHODS else len(ours), name)
