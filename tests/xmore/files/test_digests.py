"""Digests and the cache of facts about files."""

import os

import pytest

from xmore.files.digests import FactCache, digest_of, digest_text


def test_digest_ignores_the_order_of_keys_only():
    assert digest_of({"a": 1, "b": [1, 2]}) == digest_of({"b": [1, 2], "a": 1})
    assert digest_of([1, 2]) != digest_of([2, 1])
    with pytest.raises(ValueError):
        digest_of(float("nan"))


def test_lone_surrogates_have_a_digest():
    assert digest_text("\ud800") != digest_text("?")


def test_a_changed_file_loses_its_fact(tmp_path):
    root = tmp_path / "files"
    root.mkdir()
    (root / "a").write_text("one")
    (root / "b").write_text("two")
    cache = FactCache(tmp_path, root, "test")
    cache.put("a", {"x": 1})
    cache.put("b", {"x": 2})
    cache.save(["a", "b"])
    (root / "b").write_text("three")
    again = FactCache(tmp_path, root, "test")
    assert again.get("a") == {"x": 1} and again.get("b") is None
    os.utime(root / "a", ns=(0, 0))
    assert again.get("a") is None
    assert FactCache(tmp_path, root, "other").get("a") is None


def test_a_change_within_a_second_of_the_same_size_is_seen(tmp_path):
    file = tmp_path / "a"
    file.write_text("one")
    os.utime(file, ns=(0, 1_000_000))
    cache = FactCache(tmp_path / "cache", tmp_path, "test")
    cache.put("a", 1)
    file.write_text("two")
    os.utime(file, ns=(0, 2_000_000))
    assert cache.get("a") is None


def test_a_broken_cache_costs_only_time(tmp_path):
    cache = FactCache(tmp_path, tmp_path, "test")
    cache.path.write_text("{")
    assert FactCache(tmp_path, tmp_path, "test").facts == {}
