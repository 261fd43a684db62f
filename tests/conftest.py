"""A tiny world that all tests share: small models, a few real images, a real memory, a web."""

import contextlib
import gc
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Three workers on two cores: a server may take longer to start than the 20 seconds it is given.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
# There are as many workers as cores: a second thread would spin for a core that it does not get.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_THREAD_LIMIT", "1")  # autofaiss sets another number, torch's with it

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sharing import flocked, free_port, session_root, shared
from warm import Warm, server

from xmore.config.benchmark import BenchmarkConfig
from xmore.config.execution import ExecutionConfig
from xmore.config.memory import ReindexConfig
from xmore.files.digests import digest_file, digest_text
from xmore.results.views import open_views

gc.disable()  # until all is imported and collected: a third of the time it takes
# Where bytecode may not be written, each of hundreds of processes would compile all modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.pop("COLUMNS", None)  # it is 80 in xdist's workers, which are no terminals
sys.dont_write_bytecode = False

DEMO = Path(__file__).parents[1] / "data" / "demo"
LOCAL = {"allow_private": True}  # our web servers are on this machine
CLASSES = ("bird", "flower", "fruit", "insect", "tool")


def pytest_collection_finish() -> None:
    gc.enable()


@dataclass(frozen=True)
class World:
    """Folders of the tiny world, and configs over them."""

    root: Path
    images: Path = DEMO / "memory" / "images"

    def memory_config(self, captions: Path | None = None, **changes) -> ReindexConfig:
        values = {
            "memory": self.root / "memory",
            "sources": [
                {
                    "images": {
                        "folder": self.images,
                        "captions": captions or self.root / "captions.parquet",
                    }
                }
            ],
            "model_name": "lite0-pooled",
            "model": {"folder": self.root / "models" / "lite0", "pooled": True},
            "shard_rows": 100,
            "cache": self.root / "cache",
            "execution": ExecutionConfig(workers=1),
        }
        values |= changes
        values["download"] = LOCAL | values.get("download", {})
        return ReindexConfig.model_validate(values)

    def url_config(self, urls: Path, memory: Path, **changes) -> ReindexConfig:
        values = {
            "memory": memory,
            "sources": [{"urls": {"path": str(urls)}}],
            "shard_rows": 60,
            "download": {"timeout": 5, "threads": 8, "processes": 1, "retries": 0},
        }
        return self.memory_config(**(values | changes))

    def config(self, results: Path, **changes) -> BenchmarkConfig:
        lite0, lite2 = self.root / "models" / "lite0", self.root / "models" / "lite2"
        values = {
            "name": "tiny",
            "datasets": [str(self.root / "tiny.yaml")],
            "memory": self.root / "memory",
            "models": {
                "lite0": {"folder": lite0},
                "lite2": {"folder": lite2},
                "lite0-pooled": {"folder": lite0, "pooled": True},
            },
            "roles": {"inference": ["lite0"], "coarse": "lite0-pooled", "fine": "lite0"},
            "retrieval": {"candidates": 24, "captions": [8]},
            "adjustments": ["minmax", "running-sum", "global", "none"],
            "results": results,
            "report": False,
            "execution": {"workers": 1, "part_rows": 4},
        }
        return BenchmarkConfig.model_validate(values | changes)


def make_world(root: Path) -> None:
    """Queries, captions and a memory, for the models that are there."""
    from flows.reindex import xmore_reindex

    for name in CLASSES:
        (root / "queries" / name).mkdir(parents=True)
        for path in sorted((DEMO / "queries" / name).glob("*.jpg"))[:4]:
            shutil.copy(path, root / "queries" / name)
    (root / "tiny.yaml").write_text("name: tiny\nroot: queries\n")
    every_seventh = distinct_images().take(list(range(0, 240 * 7, 7)))
    pq.write_table(every_seventh, root / "captions.parquet")
    xmore_reindex.fn(World(root).memory_config())


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    """5 classes x 4 stamps, 240 captioned drawings, two small models at random weights."""
    from towers import build_tower

    def make(root: Path) -> None:
        rows = distinct_images().to_pylist()[::40]
        images = [DEMO / "memory" / "images" / row["path"] for row in rows]
        images += [min((DEMO / "queries" / name).glob("*.jpg")) for name in CLASSES]
        for lite, seed in (("lite0", 3), ("lite2", 6)):
            build_tower(root / "models" / lite, seed, images, [row["caption"] for row in rows])
        make_world(root)

    return World(shared(tmp_path_factory, "world", make))


@pytest.fixture(scope="session")
def real_models(tmp_path_factory) -> Path:
    """A folder with the demo's own two models: for tests of what these say."""
    from xmore.models.conse import build_model

    def make(root: Path) -> None:
        for lite in ("lite0", "lite2"):
            build_model(lite, root / lite)

    return shared(tmp_path_factory, "models", make)


@pytest.fixture(scope="session")
def real_world(real_models, tmp_path_factory) -> World:
    """The same world under the demo's own models."""

    def make(root: Path) -> None:
        (root / "models").symlink_to(real_models)
        make_world(root)

    return World(shared(tmp_path_factory, "real-world", make))


@dataclass(frozen=True)
class Done:
    """A completed run of the tiny world."""

    config: BenchmarkConfig
    name: str


@pytest.fixture(scope="session")
def done(world, tmp_path_factory) -> Iterator[Done]:
    """One run that tests may read; none may change it, nor add another."""
    from flows.benchmark import xmore_benchmark

    config = world.config(tmp_path_factory.mktemp("done"))
    name = xmore_benchmark.fn(config)
    yield Done(config, name)
    assert [path.name for path in (config.results / "runs").glob("[!.]*")] == [name]


@cache
def distinct_images() -> pa.Table:
    """The demo memory's pairs, each image once: some are there under two names."""
    table = pq.read_table(DEMO / "memory" / "captions.parquet")
    hashes = [digest_file(DEMO / "memory" / "images" / name) for name in table["path"].to_pylist()]
    firsts = {sha256: i for i, sha256 in reversed(list(enumerate(hashes)))}
    return table.take(sorted(firsts.values()))


@pytest.fixture(scope="session")
def distinct() -> pa.Table:
    """`path` and `caption` of the demo memory, each image once."""
    return distinct_images()


@dataclass(frozen=True)
class Leaky:
    """A completed run over a memory that holds two of its test images."""

    done: Done
    same: str  # the test image whose bytes are in the memory
    near: str  # and the one of which a smaller JPEG is
    caption: str  # of both, in the memory


@pytest.fixture(scope="session")
def leaky(world, done, tmp_path_factory) -> Leaky:
    """24 drawings and two planted test images."""
    from flows.benchmark import xmore_benchmark
    from flows.reindex import xmore_reindex

    root = tmp_path_factory.mktemp("leaky")
    drawings = distinct_images().to_pylist()[:240:10]
    images = root / "images"
    for number, row in enumerate(drawings):
        (images / row["path"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(DEMO / "memory" / "images" / row["path"], images / row["path"])
        row["caption"] = f"drawing {number}"
    queries = world.root / "queries"
    same, near = (min((queries / name).iterdir()) for name in ("bird", "tool"))
    shutil.copy(same, images / "same.jpg")
    with Image.open(near) as image:
        image.save(images / "near.jpg", quality=90)
    caption = '<script>alert("1")</script> {{ 7 * 7 }} [red]x[/red] \x1b[31m'
    drawings += [{"path": name, "caption": caption} for name in ("same.jpg", "near.jpg")]
    pq.write_table(pa.Table.from_pylist(drawings), root / "captions.parquet")
    pictures = replace(world, images=images)
    folder = pictures.memory_config(root / "captions.parquet", memory=root / "memory")
    xmore_reindex.fn(folder)
    shutil.copytree(done.config.results, root / "results")  # the queries' embeddings stay the same
    config = world.config(root / "results", memory=root / "memory")
    uris = [path.relative_to(queries).as_posix() for path in (same, near)]
    return Leaky(Done(config, xmore_benchmark.fn(config)), *uris, caption)


@pytest.fixture(scope="session")
def shuffled_card(world, tmp_path_factory) -> Path:
    """The card of the same photos and classes, each photo with the label of another one."""
    root = tmp_path_factory.mktemp("shuffled")
    shutil.copytree(world.root / "queries", root / "images")
    photos = sorted(path.relative_to(root) for path in (root / "images").rglob("*.jpg"))
    labels = [CLASSES.index(path.parts[1]) for path in photos]
    random.Random(0).shuffle(labels)
    table = pa.table({"path": list(map(str, photos)), "label": labels})
    pa.csv.write_csv(table, root / "images.csv")
    (root / "names.txt").write_text("\n".join(CLASSES))
    (root / "card.yaml").write_text(
        "name: tiny\nroot: .\nclasses: names.txt\nsource: {kind: table, file: images.csv}\n"
    )
    return root / "card.yaml"


def answers(run) -> tuple[list[tuple], list[int]]:
    """All that a run says of its queries but what it knows from labels, and these labels."""
    db = open_views(run)
    query = "select * exclude (label, class_name, uri, correct) from predictions order by all"
    labels = db.execute("select label from queries order by query_id").fetchall()
    return db.execute(query).fetchall(), [label for (label,) in labels]


@pytest.fixture
def unmoved(shuffled_card):
    """Checks that a run's predictions stay the same where the photos have each other's labels."""

    def check(run, config) -> None:
        from flows.benchmark import xmore_benchmark
        from xmore.results.runs import load_run

        other = config.model_copy(update={"datasets": [str(shuffled_card)]})
        said, labels = answers(run)
        theirs, shuffled = answers(load_run(other.results, xmore_benchmark.fn(other)))
        assert shuffled != labels and sorted(shuffled) == sorted(labels)
        assert said and theirs == said

    return check


@pytest.fixture(scope="module")
def done_again(done, tmp_path_factory) -> BenchmarkConfig:
    """The config of `done`, over a copy of its store that a test module may add to."""
    results = tmp_path_factory.mktemp("again")
    shutil.copytree(done.config.results / "store", results / "store")
    return done.config.model_copy(update={"results": results})


@pytest.fixture
def encoded(monkeypatch):
    """How many texts and images the encoders were given."""
    from xmore.models.encoder import OpenClipEncoder

    counts = {"texts": 0, "images": 0}
    encode_texts, start_images = OpenClipEncoder.encode_texts, OpenClipEncoder.start_images

    def count_texts(self, texts):
        counts["texts"] += len(texts)
        return encode_texts(self, texts)

    def count_images(self, pixels):
        counts["images"] += len(pixels)
        return start_images(self, pixels)

    monkeypatch.setattr(OpenClipEncoder, "encode_texts", count_texts)
    monkeypatch.setattr(OpenClipEncoder, "start_images", count_images)
    return counts


def write_webdataset(target: Path, images: list[Path], shards: int = 2) -> Path:
    """CLIP_benchmark's layout over images whose folders are their classes."""
    names = sorted({path.parent.name for path in images})
    (target / "test").mkdir(parents=True)
    (target / "test" / "nshards.txt").write_text(f"{shards}\n")
    (target / "classnames.txt").write_text("\n".join(name.replace("_", " ") for name in names))
    (target / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\n")
    for shard in range(shards):
        with tarfile.open(target / "test" / f"{shard}.tar", "w") as tar:
            for i, path in enumerate(images[shard::shards]):
                label = b"%d" % names.index(path.parent.name)
                for name, data in (("jpg", path.read_bytes()), ("cls", label)):
                    member = tarfile.TarInfo(f"s{i:07d}.{name}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return target


@pytest.fixture(scope="session")
def webdataset(tmp_path_factory) -> Path:
    """All classes of the demo, a photo each, as a webdataset."""
    folders = sorted(folder for folder in (DEMO / "queries").iterdir() if folder.is_dir())
    images = [min(folder.glob("*.jpg")) for folder in folders]
    return write_webdataset(tmp_path_factory.mktemp("webdataset") / "demo", images)


@pytest.fixture(scope="session")
def tiny_webdataset(world, tmp_path_factory) -> Path:
    """The world's photos as a webdataset."""
    images = sorted((world.root / "queries").rglob("*.jpg"))
    return write_webdataset(tmp_path_factory.mktemp("webdataset") / "tiny", images)


class Web(ThreadingHTTPServer):
    """A web server with the demo's images, and with all that a stranger's server may do."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: Counter[str] = Counter()
        self.outage = False

    def handle_error(self, *_) -> None:
        """Clients that hang up are wanted here."""

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"

    def url_list(self, path: Path, extra: list[tuple[str, str]] = (), rows: int = 240) -> Path:
        """A list in LAION-400M's columns of `rows` demo images, and (URL, caption) pairs."""
        table = distinct_images()
        every = table.take(list(range(0, table.num_rows, table.num_rows // rows)))[:rows]
        pairs = [(self.url(f"images/{r['path']}"), r["caption"]) for r in every.to_pylist()]
        pairs += extra
        columns = {
            "SAMPLE_ID": range(len(pairs)),
            "URL": [url for url, _ in pairs],
            "TEXT": [text for _, text in pairs],
            "LICENSE": ["?"] * len(pairs),
            "NSFW": ["UNLIKELY"] * len(pairs),
            "similarity": [i / len(pairs) for i in range(len(pairs))],
        }
        pq.write_table(pa.table(columns), path)
        return path


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *arguments) -> None:
        super().__init__(*arguments, directory=DEMO / "memory")

    def do_GET(self) -> None:
        self.server.asked[self.path] += 1
        trick = getattr(self, "_" + self.path[1:].split("/")[0].replace("-", "_"), None)
        if self.server.outage:
            self.send_error(503)
        elif trick:
            trick()
        else:
            super().do_GET()

    def _status(self) -> None:
        self.send_error(int(self.path.split("/")[2]))

    def _whole(self, headers=(), data: bytes | None = None, length: int | None = None) -> None:
        data = IMAGE.read_bytes() if data is None else data
        self.send_response(200)
        if length != -1:
            self.send_header("Content-Length", str(len(data) if length is None else length))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _no_ai(self) -> None:
        self._whole([("X-Robots-Tag", "noai")])

    def _big(self) -> None:
        self._whole(data=bytes(3_000_000), length=-1 if "unannounced" in self.path else None)

    def _short(self) -> None:
        self._whole(length=1_000_000)

    def _empty(self) -> None:
        self._whole(data=b"")

    def _to_file(self) -> None:
        self.send_response(302)
        self.send_header("Location", "file:///etc/hostname")
        self.end_headers()

    def _loop(self) -> None:
        self.send_response(302)
        self.send_header("Location", "/loop")
        self.end_headers()

    def _hang(self) -> None:
        time.sleep(30)

    def _drip(self) -> None:
        """A byte now and then: each socket operation succeeds, the whole never does."""
        head = b"HTTP/1.0 200 OK\r\nContent-Length: 100000\r\n\r\n"
        self.wfile.write(head[:10] if "headers" in self.path else head)
        for _ in range(300):
            self.wfile.write(b"x")
            self.wfile.flush()
            time.sleep(0.1)

    def log_message(self, *_) -> None:
        pass


IMAGE = min((DEMO / "memory" / "images").iterdir())


@pytest.fixture(scope="session")
def web_server() -> Iterator[Web]:
    server = Web()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def web(web_server) -> Iterator[Web]:
    """The web, up, its requests counted from nought."""
    web_server.asked.clear()
    yield web_server
    web_server.outage = False


@pytest.fixture(scope="session")
def warm(tmp_path_factory) -> Iterator[Warm]:
    """Starts processes that are forked from one that has imported what is slow."""
    root = session_root(tmp_path_factory)
    place = f"{tempfile.gettempdir()}/xmore-{digest_text(str(root))[:12]}"  # paths have to be short
    with contextlib.ExitStack() as stack:
        with flocked(root / "warm.lock"):
            stack.enter_context(server(place))
        yield Warm(place)


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory) -> Iterator[str]:
    """The address of a server that `xmore up` has started, with a worker; all workers share it.

    In a home of its own and on free ports. The last who uses it ends it by `xmore down`.
    """
    from flows.cli import services

    root = session_root(tmp_path_factory) / "prefect"
    root.mkdir(exist_ok=True)
    users, port = root / "users", root / "port"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PREFECT_API_URL", raising=False)
        for soon in ("WORKER_QUERY", "SERVER_SERVICES_SCHEDULER_LOOP"):
            patch.setenv(f"PREFECT_{soon}_SECONDS", "1")
        with flocked(root / "users.lock"):
            if not port.exists():
                port.write_text(str(free_port()))
            patch.setattr(services, "HOME", root / "home")
            patch.setattr(services, "PORT", int(port.read_text()))
            running = [service.api for service in services._services()]
            api = running[0] if running else services.up(free_port())[0]
            users.write_text(f"{int(users.read_text() or 0) + 1 if running else 1}")
        yield api
        with flocked(root / "users.lock"):
            left = int(users.read_text()) - 1
            users.write_text(str(left))
            if not left:
                services.down()
                assert not services._marked()


IMG2DATASET = "index_build.download.images.subprocess"


@pytest.fixture(scope="session", autouse=True)
def warm_downloads(request) -> Iterator[None]:
    """img2dataset's processes are forked, too; where `cold_downloads` is not asked for."""

    def start(*command, **how):
        return request.getfixturevalue("warm").downloading.Popen(*command, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(IMG2DATASET, SimpleNamespace(**vars(subprocess)))
        patch.setattr(f"{IMG2DATASET}.Popen", start)
        yield


@pytest.fixture(scope="session")
def cold_downloads() -> Callable[[], contextlib.AbstractContextManager]:
    """Within it, img2dataset is started as outside tests: each of its processes a new Python."""

    @contextlib.contextmanager
    def cold() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(IMG2DATASET, subprocess)
            yield

    return cold


class Answer(NamedTuple):
    """What a command came to."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def xmore(monkeypatch, capsys) -> Callable[..., Answer]:
    """The command line in this process: hundreds of commands in seconds."""
    from flows.cli import main

    def run(*arguments, cwd: Path | None = None, stdin: str = "") -> Answer:
        capsys.readouterr()
        before = signal.getsignal(signal.SIGTERM)
        code = 0
        with monkeypatch.context() as patch:
            patch.setattr("sys.argv", ["xmore", *map(str, arguments)])
            patch.setattr("sys.stdin", io.StringIO(stdin))
            patch.chdir(cwd or Path.cwd())
            try:
                main.app()
            except SystemExit as end:
                code = end.code or 0
            finally:
                signal.signal(signal.SIGTERM, before)
        return Answer(code, *capsys.readouterr())

    return run


class Starter:
    """Runs flows in processes that can be killed."""

    def __init__(self, warm: Warm, configs: Path) -> None:
        self.warm, self.configs, self.cold = warm, configs, False

    def run(
        self,
        flow: str,
        config,
        kill_after: float | None = None,
        kill_when: Callable[[], bool] | None = None,
    ) -> str:
        """ "0", another exit code, or "killed": after so many seconds or once a thing is so.

        With its process group.
        """
        path = self.configs / f"{flow}.json"
        path.write_text(config.model_dump_json())
        process = self.warm.flow(flow, path, self.cold)
        while kill_when and not kill_when() and process.child.poll() is None:
            time.sleep(0.002)
        if kill_after is not None or kill_when:
            time.sleep(kill_after or 0)
            with contextlib.suppress(ProcessLookupError):  # it was done already
                os.killpg(process.child.pid, signal.SIGKILL)
        code, _, error = process.end(None)
        assert code in (0, -signal.SIGKILL), error
        return "killed" if code else "0"

    @staticmethod
    def partly(folder: Path) -> Callable[[], bool]:
        """Whether some parts of an artifact under `folder` are there, and others are not."""

        def begun() -> bool:
            with contextlib.suppress(FileNotFoundError):  # whole by now
                manifests = folder.rglob("*.partial/manifest.json")
                return any("part-" in path.read_text() for path in manifests)
            return False

        return begun


@pytest.fixture
def starter(warm, tmp_path) -> Starter:
    return Starter(warm, tmp_path)
