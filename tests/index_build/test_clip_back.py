"""`clip-retrieval back`, the real one in its own process, serves our snapshot over HTTP."""

import json
import socket
import subprocess
import sys
import time
import urllib.request

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from xmore.memory.snapshot import open_snapshot
from xmore.results.runs import load_run
from xmore.store import schemas
from xmore.store.artifacts import read_rows

# Its server wants a model even for queries by embedding: any will do, if it is not downloaded.
MODEL = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}
SERVER = """
import sys
import open_clip
from clip_retrieval.clip_back import clip_back
folder, port = sys.argv[1:]
open_clip.add_model_config(folder + "/tiny.json")
clip_back(indices_paths=folder + "/indices.json", port=int(port), enable_hdf5=False,
          enable_faiss_memory_mapping=True, columns_to_return=["caption", "memory_key"],
          clip_model="open_clip:tiny/" + folder + "/tiny.safetensors", use_jit=False,
          provide_safety_model=False, provide_violence_detector=False,
          provide_aesthetic_embeddings=False, enable_mclip_option=False)
"""


@pytest.fixture
def served(done, tmp_path):
    """The address of a server over the snapshot that the run `done` has read."""
    run = load_run(done.config.results, done.name)
    snapshot = open_snapshot(done.config.memory, run.snapshot["name"])
    (tmp_path / "tiny.json").write_text(json.dumps(MODEL))
    open_clip.add_model_config(tmp_path / "tiny.json")
    torch.manual_seed(0)
    save_file(open_clip.create_model("tiny").state_dict(), tmp_path / "tiny.safetensors")
    (tmp_path / "indices.json").write_text(json.dumps({"demo": str(snapshot.path)}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(tmp_path), str(port)], stdout=log, stderr=log
        )
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.3)
    else:
        pytest.fail((tmp_path / "log").read_text())
    yield f"http://127.0.0.1:{port}/knn-service"
    process.kill()
    process.wait()


def ask(address: str, embedding: list[float], count: int) -> list[dict]:
    question = {
        "embedding_input": embedding,
        "modality": "image",
        "num_images": count,
        "indice_name": "demo",
    }
    request = urllib.request.Request(address, json.dumps(question).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def test_its_neighbours_are_those_of_candidates(done, served):
    artifacts = load_run(done.config.results, done.name).artifacts
    found = next(read_rows(ref) for ref in artifacts if ref.stage == "candidates").to_pylist()
    coarse = next(r for r in artifacts if r.stage == "query_embeddings" and r.model != "lite0")
    features = schemas.to_matrix(read_rows(coarse)["embedding"])
    for query in (0, 7, 19):
        answer = ask(served, features[query].tolist(), 24)
        assert [row["memory_key"] for row in answer] == found[query]["memory_keys"]
        for row, similarity in zip(answer, found[query]["similarities"], strict=True):
            assert row["similarity"] == pytest.approx(similarity, abs=1e-3)
            assert isinstance(row["caption"], str)
