"""What a batch keeps when it is closed."""

from dataclasses import replace

from index_build.base.batches import Batch, clear_unfinished, close, list_batches, write_batch


def batch(memory, tried) -> Batch:
    made = Batch(memory / "batches" / "00001-urls", "urls", "urls", None, "asked", {}, 3)
    for folder in (made.rows, made.images / "_tmp", made.outcomes):
        folder.mkdir(parents=True)
    write_batch(made)
    for number in range(3):
        (made.rows / f"{number:05d}.parquet").touch()
        (made.images / f"{number:05d}.tar").touch()
        (made.images / f"{number:05d}_stats.json").touch()
    (made.images / "_tmp" / "0.feather").touch()  # img2dataset's, after a kill
    (made.path / "images.log").touch()
    for number in tried:
        (made.outcomes / f"{number:05d}.parquet").touch()
    return made


def test_a_closed_batch_keeps_the_images_of_what_was_tried(tmp_path):
    close(batch(tmp_path, tried=[0, 2]))
    (closed,) = list_batches(tmp_path)
    assert closed.closed
    assert sorted(path.name for path in closed.images.iterdir()) == ["00000.tar", "00002.tar"]
    assert sorted(path.name for path in closed.path.iterdir()) == [
        "batch.json",
        "images",
        "outcomes",
    ]


def test_a_batch_of_which_nothing_was_tried_goes(tmp_path):
    close(batch(tmp_path, tried=[]))
    assert list_batches(tmp_path) == [] and not list((tmp_path / "batches").iterdir())


def test_what_a_killed_close_left_is_deleted(tmp_path):
    made = batch(tmp_path, tried=[0])
    write_batch(replace(made, closed=True))
    (made.path / ".batch.json.1.tmp").touch()
    close(list_batches(tmp_path)[0])
    left = {path.relative_to(made.path).as_posix() for path in made.path.rglob("*.*")}
    assert left == {"batch.json", "images/00000.tar", "outcomes/00000.parquet"}
    assert not made.rows.exists()


def test_what_was_no_batch_yet_is_deleted(tmp_path):
    (tmp_path / "batches" / "00001-urls" / "rows").mkdir(parents=True)
    clear_unfinished(tmp_path)
    assert not list((tmp_path / "batches").iterdir())
