"""A device without memory for a batch: the batch is halved once, then it is one line."""

import numpy as np
import pytest
import torch
import yaml
from at_random import unit
from sharing import same_rows

from flows.benchmark import xmore_benchmark
from flows.reindex import xmore_reindex
from xmore.config.execution import ExecutionConfig
from xmore.memory.snapshot import open_snapshot, resolve_current
from xmore.models import loaded as encoders
from xmore.models.encoder import OpenClipEncoder
from xmore.results.runs import load_run
from xmore.store.artifacts import read_rows

LACK = "CUDA out of memory. Tried to allocate 2.00 GiB."


@pytest.fixture
def scarce(monkeypatch):
    """Lets the device have memory for so many inputs; what is loaded is forgotten at the end."""
    monkeypatch.setattr(encoders, "_at_most", {})

    def limit(most: int) -> None:
        encoders._loaded.clear()
        encoders._at_most.clear()
        for name in ("normalise", "encode_texts"):
            run = getattr(OpenClipEncoder, name)

            def bounded(self, inputs, run=run):
                if len(inputs) > most:
                    raise torch.OutOfMemoryError(LACK)
                return run(self, inputs)

            monkeypatch.setattr(OpenClipEncoder, name, bounded)

    yield limit
    encoders._loaded.clear()


def test_a_benchmark_halves_its_batch_and_says_so(world, done, scarce, tmp_path, caplog):
    methods = [*done.config.methods, "calip"]
    scarce(2)  # of the 4 that a part has
    config = done.config.model_copy(update={"results": tmp_path / "results", "methods": methods})
    run = load_run(config.results, xmore_benchmark.fn(config))
    told = [record.message for record in caplog.records if "lacks memory" in record.message]
    assert len(told) == len(set(told)) == 2, told  # once for each model
    assert all("cpu lacks memory for a batch of" in line for line in told)
    theirs = {ref.digest: ref for ref in load_run(done.config.results, done.name).artifacts}
    same = [ref for ref in run.artifacts if ref.digest in theirs]
    assert {"query_embeddings", "captions", "scores"} <= {ref.stage for ref in same}
    for ref in same:
        assert same_rows(read_rows(ref), read_rows(theirs[ref.digest])), ref.stage


def test_a_benchmark_that_lacks_memory_again_is_one_line(world, scarce, xmore, tmp_path):
    scarce(1)
    config = world.config(tmp_path / "results", methods=["clip"])
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_none=True)))
    answer = xmore("benchmark", path)
    assert answer.returncode == 2 and answer.stderr.count("\n") == 1, answer
    assert f"error: OutOfMemoryError: {LACK} Lower `execution.batch_size`." in answer.stderr
    assert not list(config.results.rglob("*.tmp"))
    assert load_run(config.results, "latest").status == "failed"


def test_a_reindex_gives_what_the_small_batch_gives(world, scarce, tmp_path):
    found = []
    for size, most in ((8, 8), (16, 8)):
        scarce(most)
        config = world.memory_config(
            memory=tmp_path / str(size),
            execution=ExecutionConfig(workers=1, batch_size=size),
        )
        xmore_reindex.fn(config)
        snapshot = open_snapshot(config.memory, resolve_current(config.memory))
        found.append([file["sha256"] for file in snapshot.manifest["files"]])
    assert found[0] == found[1]


class Device:
    """What `in_parts` needs of an encoder."""

    at_most, device = None, "cuda"
    card = type("Card", (), {"name": "m"})
    in_parts = OpenClipEncoder.in_parts


@pytest.mark.parametrize("batch", [list(range(7)), range(7), torch.arange(7)])
def test_a_batch_is_cut_in_two_for_good(batch):
    device, seen = Device(), []

    def run(part):
        seen.append(len(part))
        if len(part) > 4:
            raise torch.OutOfMemoryError(LACK)
        return list(map(int, part))

    for _ in "12":
        assert device.in_parts(run, batch) == [[0, 1, 2, 3], [4, 5, 6]]
    assert seen == [7, 4, 3, 4, 3]
    with pytest.raises(torch.OutOfMemoryError):
        Device().in_parts(lambda part: run(range(9)), batch)


def test_tuning_goes_on_in_smaller_chunks(monkeypatch):
    from at_random import Encoder

    from xmore.models.prompt_tuning import PromptedClasses

    classes = PromptedClasses(Encoder("RN50"), ["cat", "dog", "owl"])
    weights = torch.from_numpy(unit(np.random.default_rng(0), 2, 3, 1024))
    contexts = classes.start[None]
    whole = classes.features(contexts), classes.gradients(weights)
    encode = classes._encode

    def bounded(contexts, rows):
        if len(rows) > 2:
            raise torch.OutOfMemoryError(LACK)
        return encode(contexts, rows)

    monkeypatch.setattr(classes, "_encode", bounded)
    parts = classes.features(contexts), classes.gradients(weights)
    torch.testing.assert_close(parts, whole)
