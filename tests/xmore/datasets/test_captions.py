"""A retrieval card's captions: read from each form, counted by cause, or refused in one line."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from xmore.datasets.captions import BAD_LINE, EMPTY, NO_CAPTION, NO_IMAGE, CaptionsFile
from xmore.datasets.card import DatasetCard
from xmore.datasets.scan import listing, scan
from xmore.files.errors import DatasetError

FLICKR = 'image,caption\na.jpg,A dog .\na.jpg,"A dog, who ""runs""\non ice ."\nb.jpg,007\n'
EXPECTED = {"a.jpg": ["A dog .", 'A dog, who "runs"\non ice .'], "b.jpg": ["007"]}


def read(path, **options):
    return CaptionsFile(file=path, **options).read()


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_each_form_of_a_table_has_the_same_captions(tmp_path):
    rows = [{"image": uri, "caption": text} for uri, texts in EXPECTED.items() for text in texts]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    write(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows)))
    for path in (
        write(tmp_path / "captions.txt", FLICKR),
        write(tmp_path / "t.csv", "\ufeff" + FLICKR.replace("image,", "image ,")),
        tmp_path / "t.parquet",
        tmp_path / "t.jsonl",
    ):
        assert read(path).of == EXPECTED, path
    named = write(tmp_path / "named.csv", FLICKR.replace("image,caption", "file,text"))
    assert read(named, image="file", caption="text").of == EXPECTED


def test_karpathys_json_gives_one_split(tmp_path):
    def image(split, number, folder=None):
        sentences = [{"raw": f"{split} {number}, {i}", "tokens": []} for i in range(2)]
        found = {"filename": f"{number}.jpg", "split": split, "sentences": sentences}
        return found | ({"filepath": folder} if folder else {})

    images = [image("train", 0), image("test", 1, "val2014"), image("test", 2)]
    path = write(tmp_path / "dataset_coco.json", json.dumps({"images": images}))
    assert read(path).of == {
        "val2014/1.jpg": ["test 1, 0", "test 1, 1"],
        "2.jpg": ["test 2, 0", "test 2, 1"],
    }
    assert list(read(path, split="train").of) == ["0.jpg"]
    with pytest.raises(DatasetError, match="no split `val`; it has train, test"):
        read(path, split="val")


def test_what_cannot_be_used_is_counted_by_cause(tmp_path):
    path = write(
        tmp_path / "c.csv",
        b"image,caption\na.jpg,one\na.jpg,\na.jpg,  \nb.jpg,\n,two\n"
        b"c.jpg,caf\xe9\nc.jpg,a,b\n./a.jpg,three\n"
        b'd.jpg,"' + b"x" * 100_000 + b'"\n',
    )
    found = read(path)
    assert found.of == {"a.jpg": ["one", "three"], "b.jpg": [], "d.jpg": ["x" * 100_000]}
    assert found.rejected == [
        ("line 7", BAD_LINE),
        ("line 8", BAD_LINE),
        ("a.jpg", EMPTY),
        ("a.jpg", EMPTY),
        ("b.jpg", EMPTY),
        ("row 4", NO_IMAGE),
    ]
    images = CaptionsFile(file=path).listing(tmp_path, follow_links=False)
    assert images.labels == {"a.jpg": 0, "d.jpg": 0}
    assert images.rejected == [("b.jpg", NO_CAPTION)]


def test_half_of_a_character_is_a_bad_line(tmp_path):
    images = [
        {"filename": "a.jpg", "split": "test", "sentences": [{"raw": "x"}, {"raw": "\ud800"}]}
    ]
    found = read(write(tmp_path / "k.json", json.dumps({"images": images})))
    assert found.of == {"a.jpg": ["x"]} and found.rejected == [("a.jpg", BAD_LINE)]


def test_a_caption_that_an_image_has_twice_counts_twice_and_is_told(tmp_path):
    path = write(tmp_path / "c.csv", "image,caption\na.jpg,one\na.jpg,one\nb.jpg,one\n")
    found = read(path)
    assert found.of == {"a.jpg": ["one", "one"], "b.jpg": ["one"]}
    assert found.notes == ["1 caption of the same image again, such as 'one'; all count."]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("gone.csv", None, "no such table"),
        ("empty.csv", "", "is empty"),
        ("c.csv", "image,text\na.jpg,one\n", "no column `caption`; it has image, text"),
        ("c.csv", "image,caption\na.jpg,\n", "no image with a caption"),
        ("c.csv", "image,caption\n../a.jpg,one\n", "row 0: '../a.jpg' must stay inside the root"),
        ("c.csv", "image,caption\n/etc/a.jpg,one\n", "'/etc/a.jpg' must stay inside the root"),
        ("c.parquet", "PAR1", "not readable Parquet"),
        ("gone.json", None, "No such file"),
        ("k.json", "{", "not in Karpathy's form"),
        ("k.json", '[{"image": "a.jpg"}]', "not in Karpathy's form"),
        ("k.json", '{"images": [{"split": [1]}]}', "not in Karpathy's form"),
        ("k.json", '{"images": [{"split": "test"}]}', "images[0]: must have a `filename`"),
        (
            "k.json",
            '{"images": [{"split": "test", "filename": "a.jpg", "sentences": [{"raw": 7}]}]}',
            "images[0]: must have a `filename` and `sentences`",
        ),
        (
            "k.json",
            '{"images": [{"split": "test", "filename": "../a.jpg", "sentences": []}]}',
            "must stay inside the root",
        ),
    ],
)
def test_a_wrong_file_is_refused(name, text, says, tmp_path):
    if text is not None:
        write(tmp_path / name, text)
    with pytest.raises(DatasetError) as error:
        read(tmp_path / name)
    assert says in str(error.value) and name in str(error.value)


def card(**changes):
    values = {"name": "pairs", "task": "retrieval", "root": ".", "captions": {"file": "c.csv"}}
    return DatasetCard.model_validate(values | changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"captions": None}, "belong together"),
        ({"task": "classification"}, "belong together"),
        ({"source": {"kind": "webdataset"}}, "has no `source`; remove it"),
        ({"classes": {"a": "b"}}, "has no `classes`"),
        ({"prompt": "a {}"}, "has no `prompt`"),
        ({"task": "captioning"}, "retrieval"),
    ],
)
def test_a_card_that_makes_no_sense_is_refused(changes, says):
    with pytest.raises(ValidationError, match=says):
        card(**changes)


def test_a_card_without_its_folder_or_its_images_is_refused(tmp_path):
    file = write(tmp_path / "c.csv", "image,caption\na.jpg,one\nb.jpg,two\n")
    with pytest.raises(DatasetError, match=r"no folder .*nowhere; correct `root`"):
        listing(card(root=tmp_path / "nowhere", captions={"file": file}))
    lost = card(root=tmp_path, captions={"file": file})
    with pytest.raises(DatasetError, match=r"2 of 2 images cannot be used \(2 no such file"):
        scan(lost, tmp_path / "cache", max_rejected=0.5)
