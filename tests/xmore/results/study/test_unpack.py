"""A study from a stranger: refused in one line, with nothing left behind, or read right."""

import stat
from dataclasses import replace
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import pytest
import yaml
from unprivileged import unprivileged

from xmore.files.errors import ArtifactError, StudyError
from xmore.files.sealed import sealed, unsealed
from xmore.results.runs import config_of, load_run
from xmore.results.study import unpack as unpacking
from xmore.results.study.layout import INDEX
from xmore.results.study.pack import gather, write_study
from xmore.results.study.unpack import unpack


@pytest.fixture(scope="module")
def run(done):
    return load_run(done.config.results, done.name)


@pytest.fixture(scope="module")
def study(run, tmp_path_factory) -> Path:
    """A study without a report, which takes seconds to draw."""
    out = tmp_path_factory.mktemp("packed") / "tiny.zip"
    write_study(gather(run, captions=False), out)
    return out


class Zip:
    """The files of a study, to spoil and to write again with an index that fits."""

    def __init__(self, study: Path) -> None:
        with ZipFile(study) as archive:
            self.files = {name: archive.read(name) for name in archive.namelist()}
        self.index = unsealed(self.files.pop(INDEX))
        self.run = f"runs/{self.index['run']}"
        self.infos: list[ZipInfo] = []  # more files, which the index need not know

    def part(self) -> str:
        return next(name for name in self.files if name.endswith(".parquet"))

    def listed(self) -> None:
        """Let the index list the files as they are."""
        self.index["files"] = [
            {"file": name, "bytes": len(data), "sha256": digest(data)}
            for name, data in self.files.items()
        ]

    def edit_run(self, change) -> None:
        data = unsealed(self.files[f"{self.run}/run.json"])
        change(data)
        self.files[f"{self.run}/run.json"] = sealed(data)
        self.listed()

    def write(self, path: Path) -> Path:
        with ZipFile(path, "w", ZIP_DEFLATED) as archive:
            for name, data in self.files.items():
                archive.writestr(name, data)
            for info in self.infos:
                archive.writestr(info, b"x")
            archive.writestr(INDEX, sealed(self.index))
        return path


def digest(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def with_file(name: str):
    def spoil(of: Zip) -> None:
        of.files[name.replace("RUN", of.run)] = b"x"
        of.listed()

    return spoil


def link(of: Zip) -> None:
    name = f"{of.run}/inputs/a.txt"
    of.files[name] = b"x"
    of.listed()
    del of.files[name]
    info = ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    of.infos.append(info)


def bomb(of: Zip) -> None:
    of.files[f"{of.run}/inputs/a.txt"] = b"0" * 80_000_000
    of.listed()


def hidden_bomb(of: Zip) -> None:
    bomb(of)
    of.index["files"][-1]["bytes"] = 10


def too_much(of: Zip) -> None:
    of.index["files"][0]["bytes"] = int(1e15)


def two_of_one_case(of: Zip) -> None:
    for name in ("a.txt", "A.txt"):
        of.files[f"{of.run}/inputs/{name}"] = b"x"
    of.listed()


def twice(of: Zip) -> None:
    of.infos.append(ZipInfo(of.part()))


def changed(of: Zip) -> None:
    of.files[of.part()] = of.files[of.part()][:-1] + b"x"


def shorter(of: Zip) -> None:
    of.files[of.part()] = of.files[of.part()][:-1]


def other_manifest(of: Zip) -> None:
    """A part whose index fits and whose manifest does not."""
    changed(of)
    of.listed()


def without(pattern: str):
    def spoil(of: Zip) -> None:
        name = next(name for name in of.files if pattern in name)
        del of.files[name]
        of.listed()

    return spoil


def of_run(change):
    return lambda of: of.edit_run(change)


def an_artifact_less(data: dict) -> None:
    data["artifacts"] = [ref for ref in data["artifacts"] if ref["stage"] != "predictions"]


def all_here(data: dict) -> None:
    for ref in data["artifacts"]:
        ref.pop("left_out", None)


HOSTILE = {
    "absolute": (with_file("/etc/x"), "must stay inside its folder"),
    "parents": (with_file("RUN/inputs/../../../x.txt"), "must stay inside its folder"),
    "backslashes": (with_file("RUN\\x"), "a file that no study has"),
    "code": (with_file("RUN/inputs/a.py"), "a file that no study has"),
    "views": (with_file("RUN/views.sql"), "a file that no study has"),
    "other stage": (with_file("store/scores/d/" + "0" * 64 + "/manifest.json"), "no study has"),
    "other run": (with_file("runs/other/run.json"), "a file of another run"),
    "link": (link, "a link or an encrypted file"),
    "bomb": (bomb, "bytes, which is too much"),
    "hidden bomb": (hidden_bomb, "in another size"),
    "too much": (too_much, "bytes, which is too much"),
    "one case": (two_of_one_case, "two files of one name"),
    "twice": (twice, "other files than its study.json lists"),
    "changed": (changed, "is damaged. Get it again"),
    "shorter": (shorter, "in another size"),
    "other manifest": (other_manifest, "its bytes differ from those that were written"),
    "part gone": (without("part-"), "is absent"),
    "manifest gone": (without("manifest.json"), "damaged"),
    "run gone": (without("run.json"), "its run is damaged"),
    "index only": (lambda of: of.index.update(files=[]), "other files than"),
    "name": (lambda of: of.index.update(run="../x"), "must stay inside its folder"),
    "nameless": (lambda of: of.index.update(run="."), "a file of another run"),
    "newer": (lambda of: of.index.update(format=2, run=3), "newer version of X-MoRe (format 2"),
    "no format": (lambda of: of.index.pop("format"), "its study.json is damaged"),
    "unfinished": (of_run(lambda data: data.update(finished=None)), "its run is interrupted"),
    "no datasets": (of_run(lambda data: data["config"].pop("datasets")), "its run is damaged"),
    "no methods": (of_run(lambda data: data["config"].pop("methods")), "its run is damaged"),
    "no execution": (of_run(lambda d: d["config"].update(execution=[])), "its run is damaged"),
    "no text": (of_run(lambda d: d["config"].update(methods=[1])), "its run is damaged"),
    "a list": (of_run(lambda data: data.update(config=[])), "its run is damaged"),
    "escape": (of_run(lambda d: d["artifacts"][0].update(dataset="../..")), "its run is damaged"),
    "strays": (of_run(an_artifact_less), "its run does not name store/predictions"),
    "lacks": (of_run(all_here), "is gone"),
    "bad card": (with_file("RUN/inputs/x.yaml"), "its run is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_study_is_refused_and_leaves_nothing(study, tmp_path, case):
    spoil, says = HOSTILE[case]
    found = Zip(study)
    spoil(found)
    place = tmp_path / "place"
    place.mkdir()
    with pytest.warns(UserWarning) if case == "twice" else nothing():
        path = found.write(tmp_path / "x.zip")
    with pytest.raises(StudyError) as refused:
        unpack(path, place / "opened")
    assert says in str(refused.value) and str(path) in str(refused.value)
    assert list(place.iterdir()) == [] and len(list(tmp_path.iterdir())) == 2


def nothing():
    import contextlib

    return contextlib.nullcontext()


def test_a_study_that_is_written_again_unchanged_is_opened(study, run, tmp_path):
    opened = unpack(Zip(study).write(tmp_path / "x.zip"), tmp_path / "opened")
    assert opened.name == run.name and opened.status == "completed"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda data: b"", "is no zip, or damaged"),
        (lambda data: b"PK" + data[2:100], "is no zip, or damaged"),
        (lambda data: data[: len(data) // 2], "is no zip, or damaged"),
        (lambda data: data[:-30], "is no zip, or damaged"),
        (lambda data: data[:500] + bytes([data[500] ^ 1]) + data[501:], "damaged"),
        (lambda data: b"\0" * len(data), "is no zip, or damaged"),
    ],
)
def test_a_damaged_zip_is_refused(study, tmp_path, spoil, says):
    path = tmp_path / "x.zip"
    path.write_bytes(spoil(study.read_bytes()))
    with pytest.raises(StudyError, match=says):
        unpack(path, tmp_path / "opened")
    assert [each.name for each in tmp_path.iterdir()] == ["x.zip"]


def test_a_foreign_zip_and_an_encrypted_one_are_refused(study, tmp_path):
    with ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("holiday.jpg", b"x")
    with pytest.raises(StudyError, match="no study that `xmore pack` has made"):
        unpack(tmp_path / "x.zip", tmp_path / "opened")
    data = bytearray(Zip(study).write(tmp_path / "y.zip").read_bytes())
    for mark, at in ((b"PK\1\2", 8), (b"PK\3\4", 6)):  # of each file, the flag of encryption
        start = data.find(mark)
        while start >= 0:
            data[start + at] |= 1
            start = data.find(mark, start + 4)
    (tmp_path / "y.zip").write_bytes(data)
    with pytest.raises(StudyError, match="encrypted"):
        unpack(tmp_path / "y.zip", tmp_path / "opened")
    with pytest.raises(StudyError, match="is no file"):
        unpack(tmp_path, tmp_path / "opened")


def test_deep_and_long_indices_are_refused(study, tmp_path, monkeypatch):
    with ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(INDEX, "[" * 100_000)
    with pytest.raises(StudyError, match="is damaged"):
        unpack(tmp_path / "x.zip", tmp_path / "opened")
    monkeypatch.setattr(unpacking, "MOST_INDEX", 1000)
    with pytest.raises(StudyError, match="more than 1,000 bytes"):
        unpack(study, tmp_path / "opened")


def test_a_full_disk_is_seen_before(study, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("", (), {"free": 10}))
    with pytest.raises(StudyError, match="and 10 are free there"):
        unpack(study, tmp_path / "opened")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_there_until_all_of_it_is(study, tmp_path, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(unpacking, "_check", stopped)
    with pytest.raises(KeyboardInterrupt):
        unpack(study, tmp_path / "opened")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_overwritten(study, tmp_path):
    for name in ("file", "full", "empty"):
        (tmp_path / name).mkdir() if name != "file" else (tmp_path / name).write_text("x")
    (tmp_path / "full" / "mine").write_text("x")
    for name in ("file", "full"):
        with pytest.raises(StudyError, match="is there already"):
            unpack(study, tmp_path / name)
    assert unpack(study, tmp_path / "empty").status == "completed"
    (tmp_path / "locked").mkdir(mode=0o500)
    with unprivileged(), pytest.raises(PermissionError, match="locked"):
        unpack(study, tmp_path / "locked" / "opened")


def test_no_code_and_no_cluster_of_the_sender_is_used(study, tmp_path, world):
    marker = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    found = Zip(study)

    def change(data):
        data["config"]["methods"] += [str(tmp_path / "evil.py"), "<study>/inputs/evil.py"]
        data["config"]["execution"] |= {"runner": "dask", "address": "tcp://evil:1"}

    found.edit_run(change)
    opened = unpack(found.write(tmp_path / "x.zip"), tmp_path / "opened")
    assert opened.config["methods"][-2:] == ["evil.py of its sender"] * 2
    assert opened.config["execution"]["runner"] == "local"
    assert opened.config["execution"]["address"] is None
    config = yaml.safe_load((opened.path / "config.yaml").read_text())
    assert config["methods"] == opened.config["methods"] and "results" not in config
    assert not marker.exists()


def test_cards_and_prompts_go_with_it_and_lead_to_them(run, tmp_path, world):
    """A card of one's own with a file of names, and prompts, none of them the project's."""
    names = tmp_path / "names.txt"
    names.write_text("bird\tfowl\n")
    card = {"name": "mine", "root": str(world.root / "queries"), "classes": str(names)}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(card))
    (tmp_path / "prompts.txt").write_text("a {}.\n")
    sets = [{"name": "one", "template": None, "file": str(tmp_path / "prompts.txt")}]
    changes = {"datasets": [str(tmp_path / "mine.yaml"), "dtd"], "prompt_sets": sets}
    found = gather(replace(run, config=run.config | changes), captions=False)
    write_study(found, tmp_path / "x.zip")
    names.unlink()
    opened = unpack(tmp_path / "x.zip", tmp_path / "opened")
    config = config_of(opened)
    assert config.datasets == [str(opened.path / "inputs" / "mine.yaml"), "dtd"]
    assert config.prompt_sets[0].file.read_text() == "a {}.\n"
    from xmore.datasets.card import load_card, named_classes

    mine = load_card(config.datasets[0])
    assert named_classes(mine) == [("bird", "fowl")] and mine.root == world.root / "queries"
    assert load_card(str(opened.path / "inputs" / "dtd.yaml")).expected == load_card("dtd").expected


def test_captions_are_packed_on_request(run, tmp_path, xmore):
    found = gather(run, captions=True)
    assert any(name.startswith("store/captions/") for name in found.files)
    write_study(found, tmp_path / "x.zip")
    from xmore.results.views import open_views

    views = open_views(unpack(tmp_path / "x.zip", tmp_path / "opened"))
    assert views.sql("from captions").fetchall() == open_views(run).sql("from captions").fetchall()
    assert views.sql("from candidates").fetchall() == []
    answer = xmore("explain", "latest", "0", "--results", tmp_path / "opened")
    assert "8 captions kept:" in answer.stdout and "no candidates" not in answer.stdout


def test_a_damaged_part_is_not_packed(run, tmp_path):
    found = gather(run, captions=False)
    name, path = next((n, p) for n, p in found.files.items() if n.endswith(".parquet"))
    spoiled = tmp_path / "store" / path.parent.name
    spoiled.mkdir(parents=True)
    (spoiled / "manifest.json").write_bytes((path.parent / "manifest.json").read_bytes())
    (spoiled / path.name).write_bytes(path.read_bytes()[:-1] + b"x")
    wrong = replace(found, files=found.files | {name: spoiled / path.name})
    with pytest.raises(ArtifactError, match="its bytes differ"):
        write_study(wrong, tmp_path / "x.zip")
    with pytest.raises(IsADirectoryError):
        write_study(found, tmp_path / "store")
    assert [each.name for each in tmp_path.iterdir()] == ["store"]
