import numpy as np

from xmore.models.encoder import TextFeatures
from xmore.models.spec import ModelCard, ModelSpec
from xmore.store.texts import CaptionStore

CARD = ModelCard("m", ModelSpec(folder="m"), {})


def encode(texts: list[str]) -> TextFeatures:
    return TextFeatures(
        np.eye(len(texts), 8, dtype=np.float32),
        np.arange(1, len(texts) + 1, dtype=np.float32),
        np.zeros(len(texts), bool),
    )


def test_the_next_writer_sweeps_up_after_a_killed_one(tmp_path, monkeypatch):
    store = CaptionStore(tmp_path, CARD)
    store.add(["a", "b"], encode)
    (store.path / ".manifest.json.1.tmp").write_text("{")
    for name in ("part-00001.parquet", "part-00002.tmp"):  # written, but not listed yet
        (store.path / name).write_text("half")

    again = CaptionStore(tmp_path, CARD)
    again.add(["b", "c"], encode)

    assert sorted(p.name for p in store.path.iterdir()) == [
        "manifest.json",
        "part-00000.parquet",
        "part-00001.parquet",
    ]
    assert again.lookup(["c"]).norm.tolist() == [1.0]


def test_a_store_opened_before_another_wrote_encodes_only_what_that_lacks(tmp_path):
    mine, theirs = CaptionStore(tmp_path, CARD), CaptionStore(tmp_path, CARD)
    theirs.add(["a", "b"], encode)
    encoded = []

    def counted(texts):
        encoded.extend(texts)
        return encode(texts)

    assert mine.add(["a", "c"], counted) == 1 and encoded == ["c"]
    again = CaptionStore(tmp_path, CARD)
    assert len(again) == 3 and again.lookup(["b"]).norm.tolist() == [2.0]


def test_a_damaged_part_is_moved_aside_and_its_number_not_taken_again(tmp_path):
    store = CaptionStore(tmp_path, CARD)
    store.add(["a", "b"], encode)
    (store.path / "part-00000.parquet").write_bytes(b"damaged")
    again = CaptionStore(tmp_path, CARD)
    assert again.add(["a"], encode) == 1
    names = {path.name for path in store.path.iterdir()}
    assert names == {"manifest.json", "part-00000.parquet.broken-1", "part-00001.parquet"}
