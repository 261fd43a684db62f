import open_clip
import pytest
import torch

from benchmarks.tokens import captions, texts
from xmore.models import quick_tokenizer
from xmore.models.quick_tokenizer import QuickTokenizer, quick


@pytest.fixture(scope="module")
def slow():
    return open_clip.SimpleTokenizer()


@pytest.fixture(scope="module")
def fast():
    return quick(open_clip.SimpleTokenizer())


@pytest.mark.parametrize("n", [2_000, pytest.param(60_000, marks=pytest.mark.slow)])
def test_real_and_hostile_captions_have_open_clips_tokens(slow, fast, n):
    asked = [*captions(), "", " ", *texts(n, seed=n)]
    for length in (78, 77, 16):
        for start in range(0, len(asked), 500):
            batch = asked[start : start + 500]
            one, other = slow(batch, length), fast(batch, length)
            unequal = (one != other).any(1).nonzero().ravel().tolist()
            assert [batch[i] for i in unequal] == []
            assert one.dtype == other.dtype and one.shape == other.shape
        if n > 2_000:
            break


@pytest.mark.parametrize("clean", ["lower", "whitespace", "canonicalize"])
def test_other_ways_to_clean_are_kept(clean):
    slow, fast = (open_clip.SimpleTokenizer(clean=clean, context_length=32) for _ in range(2))
    asked = ["A  Dog_s, &amp; Cat's", "plain TEXT, _with_ marks!", "\u00c9t\u00e9"]
    assert torch.equal(slow(asked), quick(fast)(asked))


def test_words_that_are_kept_are_bounded(slow, monkeypatch):
    monkeypatch.setattr(quick_tokenizer, "KEPT_WORDS", 20)
    fast = quick(open_clip.SimpleTokenizer())
    asked = [f"word{chr(97 + i % 26)}{'x' * (i % 50)}" for i in range(200)]
    assert torch.equal(slow(asked), fast(asked)) and len(fast._words) <= 20
    assert max(map(len, fast._words)) <= quick_tokenizer.LONGEST


def test_tokenizers_of_other_kinds_stay():
    masked = open_clip.SimpleTokenizer(reduction_mask="simple")
    assert quick(masked) is masked and quick(None) is None
    assert isinstance(quick(open_clip.SimpleTokenizer()), QuickTokenizer)
