"""Files of names and YAML files of any content: each line a name, or one line that refuses."""

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xmore.files.errors import ConfigError
from xmore.files.text import CONTROL, read_names
from xmore.files.yaml import load_yaml

ANY = settings(
    max_examples=200,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
ends = st.sampled_from(["\n", "\r\n", "\r"])
names = st.text(st.characters(exclude_categories=CONTROL), min_size=1, max_size=8)


@ANY
@given(
    st.lists(names.filter(str.strip), min_size=1, max_size=6), ends, st.booleans(), st.booleans()
)
def test_every_name_is_read_in_its_line(tmp_path, written, end, mark, closed):
    path = tmp_path / "names.txt"
    text = end.join(written) + (end if closed else "")
    path.write_bytes((b"\xef\xbb\xbf" if mark else b"") + text.encode())
    first = next((i for i, n in enumerate(written) if not is_comment(n)), len(written))
    expected = [(i + 1, name.strip()) for i, name in enumerate(written) if i >= first]
    assert read_names(path, ConfigError, "it") == expected


def is_comment(line: str) -> bool:
    line = line.strip()
    return line == "#" or (line[:1] == "#" and line[1].isspace())


@ANY
@given(
    st.binary(max_size=30) | st.text(max_size=20).map(lambda text: text.encode("utf-8", "replace"))
)
def test_any_bytes_are_names_or_refused_in_one_line(tmp_path, data):
    path = tmp_path / "names.txt"
    path.write_bytes(data)
    try:
        found = read_names(path, ConfigError, "it")
    except ConfigError as error:
        assert str(error).startswith(f"{path}, line ") and str(error).isprintable()
        return
    assert all(name and name == name.strip() for _, name in found)
    lines = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    unread = [line for i, line in enumerate(lines, 1) if i not in dict(found)]
    assert all(not line.strip() or is_comment(line) for line in unread)


plain = st.sampled_from(
    ["no", "on", "y", "007", "1.50", "1e5", "12:30", "0x10", "2020-01-01", "1_0"]
)


@ANY
@given(st.dictionaries(names | plain, plain | names, min_size=1, max_size=4))
def test_names_in_yaml_stay_what_they_are(tmp_path, classes):
    path = tmp_path / "card.yaml"
    path.write_text(yaml.safe_dump(classes, allow_unicode=True), encoding="utf-8")
    assert load_yaml(path) == classes


@ANY
@given(plain, plain)
def test_names_in_yaml_need_no_quotes(tmp_path, key, name):
    path = tmp_path / "card.yaml"
    path.write_text(f"{key}: {name}\n")
    assert load_yaml(path) == {key: name}
    path.write_text(f"{key}: {name}\n{key}: x\n")
    with pytest.raises(ConfigError, match=r"line 2: not valid YAML: the key .* is there twice"):
        load_yaml(path)
