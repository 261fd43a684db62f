"""Images of a memory's rows, out of tars."""

import gzip
import io
import tarfile

import pytest

from xmore.memory.pictures import _read


@pytest.mark.parametrize("change", [bytes, gzip.compress, lambda tar: tar[:4196]])
def test_of_members_of_one_name_the_first_is_the_rows(tmp_path, change):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", errors="surrogateescape") as tar:
        for name, data in [
            ("./part.0/a.jpg", b"a"),
            ("caf\udce9.jpg", b"b"),
            ("c.seg.png", b"c"),
            ("./part.0/a.jpg", b"second"),
        ]:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    path = tmp_path / "0.tar"
    path.write_bytes(change(out.getvalue()))
    names = {0: "c.seg.png", 1: "./part.0/a.jpg", 2: "caf\\xe9.jpg", 3: "gone.jpg"}
    assert dict(_read(path, names)) == {0: b"c", 1: b"a", 2: b"b"}
    assert dict(_read(tmp_path / "no.tar", names)) == {}
