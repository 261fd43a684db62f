"""Digests and the cache of facts about files."""

import os

import pytest

from xmore.files import digests
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


@pytest.mark.parametrize("text", ["{", "[]", "3", "null", '{"a": 3}', '{"a": [1]}', "[" * 9999])
def test_a_broken_cache_costs_only_time(tmp_path, text):
    (tmp_path / "a").write_text("one")
    cache = FactCache(tmp_path, tmp_path, "test")
    cache.path.write_text(text)
    again = FactCache(tmp_path, tmp_path, "test")
    assert again.get("a") is None
    again.put("a", 1)
    again.save(["a"])
    assert FactCache(tmp_path, tmp_path, "test").get("a") == 1


def test_a_killed_writers_file_does_not_stay(tmp_path):
    (tmp_path / "a").write_text("one")
    cache = FactCache(tmp_path / "cache", tmp_path, "test")
    cache.path.parent.mkdir()
    (leftover := cache.path.with_name(f".{cache.path.name}.1.tmp")).touch()
    cache.get("a")
    cache.put("a", 1)
    cache.save(["a"])
    assert cache.path.exists() and not leftover.exists()


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, caplog):
    (tmp_path / "a").write_text("one")
    cache = FactCache(tmp_path, tmp_path, "test")
    cache.path.mkdir()
    cache = FactCache(tmp_path, tmp_path, "test")
    assert cache.get("a") is None
    cache.put("a", 1)
    cache.save(["a"])
    assert "cannot be written" in caplog.text


def test_a_file_that_changes_while_it_is_read_keeps_no_fact(tmp_path, monkeypatch):
    file, cache = tmp_path / "weights", tmp_path / "cache"
    file.write_text("one")
    reading = digests.digest_file

    def read_while_another_writes(path):
        found = reading(path)
        file.write_text("another")
        return found

    monkeypatch.setattr(digests, "digest_file", read_while_another_writes)
    digests.cached_digest(file, cache)
    monkeypatch.undo()
    assert digests.cached_digest(file, cache) == reading(file)


def test_a_file_that_is_gone_has_no_fact(tmp_path):
    cache = FactCache(tmp_path / "cache", tmp_path, "test")
    assert cache.get("gone") is None
    cache.put("gone", 1)
    assert cache.facts == {}
