"""The tokenizer against open_clip's: the same tokens of a million texts, and texts per second.

    python benchmarks/tokens.py [TEXTS]

The demo's captions, each as it is or harmed: with HTML, wrong encodings, other alphabets, control
characters, special tokens, endless words. Some minutes for the default of a million.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator

import open_clip
import pyarrow.parquet as pq

from xmore.files.paths import PROJECT_ROOT
from xmore.models.encoder import CHARACTERS, _cut
from xmore.models.quick_tokenizer import quick

CAPTIONS = PROJECT_ROOT / "data" / "demo" / "memory" / "captions.parquet"
BATCH = 64
PIECES = [
    "<start_of_text>", "<end_of_text>", "<Start_Of_Text>", "<\u017ftart_of_text>", "<|endoftext|>",
    "&amp;", "&amp;amp;lt;b&gt;", "&eacute;", "&EACUTE;", "&#39;", "&#x1F600;", "&nbsp", "&;",
    "<br>", "it's", "IT'S", "we'Re", "they\u2019ll", "'\u017f", "'\u212aS", "I'D'VE", "''s",
    "\u00b4s", "`t", "\x1b[31mred\x1b[0m", "\x00", "\x07", "\x0b", "\x0c", "\x1c\x1d", "\x7f",
    "\x85", "\u2028", "\u200b", "\ufeff", "\u00ad", "\u202e", "\r\n", "\r", "\t", "\u3000",
    "\u00a0", "\u2003", "\ud800", "\udfff", "\ud83d\ude00", "\ufb01ne", "\uff21\uff22\uff23",
    "\u0130stanbul", "STRASSE \u1e9e \u00df", "\u01c5", "e\u0301", "\u1100\u1161\u11a8",
    "\u0e01\u0e33", "\u0928\u093f", "\U0001f468\u200d\U0001f469", "\u00c3\u00a9",
    "\u00e2\u20ac\u2122", "\u00ef\u00bf\u00bd", "\u00f0\u0178\u02dc\u20ac", "\ufffd", "\u00bd",
    "\u2167", "\u0663", "\u4e00\u4e8c\u4e09", "\u6771\u4eac", "\u0440\u0443\u0441", "x\u00b2",
    "#tag", "@name", "http://a.example/b?c=d&e=f", "3.14", "1,000", "...", "!!!", "$$", "\\", "\"",
    "_", "\U0001e900", "\U00010400", "\U00016ea0", "\u1c89", "\ua7ce", "\U0001fae9", "\U000e0041",
    "\uffff",
]  # fmt: skip


def captions() -> list[str]:
    """Return the demo's captions."""
    return [str(text) for text in pq.read_table(CAPTIONS)["caption"].to_pylist()]


def harmed(text: str, rng: random.Random) -> str:
    """Return a caption as a web page may give it."""
    way = rng.randrange(10)
    if way == 0:
        return text.encode().decode(rng.choice(["latin-1", "cp1252", "cp437"]), "replace")
    if way == 1:
        return "".join(rng.choice([c.upper(), c, f"&#{ord(c)};"]) for c in text)
    if way == 2:
        return "".join(chr(rng.randrange(0x110000)) for _ in range(rng.randrange(1, 30)))
    if way == 3:
        return "".join(chr(rng.randrange(1, 0x500)) for _ in range(rng.randrange(1, 60)))
    if way == 4:
        return rng.choice([text.replace(" ", ""), text[:5] * 20, rng.choice(PIECES) * 30])
    words = text.split(" ")
    for _ in range(rng.randrange(1, 6)):
        piece, at = rng.choice(PIECES), rng.randrange(len(words) + 1)
        if way < 7 or at == len(words):
            words.insert(at, piece)
        else:
            words[at] += piece
    return rng.choice([" ", " ", "  ", "\n", ""]).join(words)


def texts(n: int, seed: int = 0) -> Iterator[str]:
    """Yield n texts: captions with another's end, and as many harmed ones; cut as ours are."""
    rng, real = random.Random(seed), captions()
    for i in range(n):
        one, other = rng.choice(real), rng.choice(real)
        text = f"{one[: rng.randrange(len(one) + 1)]}{other[rng.randrange(len(other) + 1) :]}"
        yield _cut(harmed(text, rng) if i % 2 else text, CHARACTERS * 77)


def main(n: int) -> None:
    """Count the texts of which the tokens differ; print texts per second of processor time."""
    slow, fast = open_clip.SimpleTokenizer(), quick(open_clip.SimpleTokenizer())
    real = captions()
    real *= -(-20_000 // len(real))
    seconds = {}
    for name, tokenizer in (("open_clip", slow), ("ours", fast)) * 2:
        begun = time.process_time()
        for start in range(0, len(real), BATCH):
            tokenizer(real[start : start + BATCH], 77)
        seconds[name] = time.process_time() - begun
    for name, spent in seconds.items():
        print(f"{name}: {len(real) / spent:,.0f} captions per second")
    differ = 0
    begun, batch = time.perf_counter(), []
    for i, text in enumerate(texts(n), 1):
        batch.append(text)
        if len(batch) == BATCH or i == n:
            unequal = (slow(batch, 78) != fast(batch, 78)).any(1)
            differ += int(unequal.sum())
            for which in unequal.nonzero().ravel().tolist()[:3]:
                print(f"DIFFERENT: {batch[which]!r}")
            batch.clear()
    print(f"{differ} of {n:,} texts differ, {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
