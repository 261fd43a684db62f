"""A run in 16 bits over a memory in 32: what is stored apart, what is recorded, what is shown."""

from dataclasses import replace

from flows.benchmark import xmore_benchmark
from flows.plan import look_up, settle_batch_size
from xmore.files.code import code
from xmore.memory.adopt import open_memory
from xmore.models import batch_size
from xmore.results.runs import Run, load_run
from xmore.store.checks import read_manifest


def test_a_run_in_bf16_over_a_memory_in_fp32(world, done, tmp_path):
    changes = {"results": tmp_path, "precision": "bf16", "report": True, "methods": ["clip"]}
    run = load_run(tmp_path, xmore_benchmark.fn(done.config.model_copy(update=changes)))
    assert {facts["precision"] for facts in run.models.values()} == {"bf16"}
    assert {facts["batch_size"] for facts in run.models.values()} == {64}
    embedded = [ref for ref in run.artifacts if ref.stage == "query_embeddings"]
    before = load_run(done.config.results, done.name)
    assert {facts["precision"] for facts in before.models.values()} == {"fp32"}
    theirs = {ref.digest for ref in before.artifacts if ref.stage == "query_embeddings"}
    assert embedded and not theirs & {ref.digest for ref in embedded}
    for ref in embedded:
        manifest = read_manifest(world.root / ref.path)
        assert manifest["params"]["precision"] == "bf16"
    page = (run.path / "report" / "report.html").read_text()
    for name, facts in run.models.items():
        assert f"<dt>{name}</dt><dd>bf16, batches of 64, {facts['digest'][:8]}</dd>" in page


def test_a_batch_size_left_open_is_settled_once_a_run(done, monkeypatch):
    assert code() and done.config.execution.batch_size
    free = done.config.execution.model_copy(update={"batch_size": "auto"})
    config = done.config.model_copy(update={"execution": free})
    asked = []

    def fits(*arguments):
        asked.append(arguments[0])
        return 256

    monkeypatch.setattr("flows.plan.settled", fits)
    run = Run(done.config.results, {}, {}, "")
    with open_memory(config.memory, config.results / "cache") as snapshot:
        plan = look_up(config, snapshot)
        assert settle_batch_size(plan, run).work.execution.batch_size == 256
        assert {facts["batch_size"] for facts in run.models.values()} == {256}
        monkeypatch.setattr("flows.plan.settled", lambda *_: 128)
        assert settle_batch_size(plan, run).work.execution.batch_size == 256
        named = replace(plan, config=done.config.model_copy(update={
            "execution": free.model_copy(update={"batch_size": 7})}))  # fmt: skip
        assert settle_batch_size(named, run).work.execution.batch_size == 7
    assert asked == ["auto"] and batch_size.ON_CPU == 64
