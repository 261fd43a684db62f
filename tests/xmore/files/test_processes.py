"""Items of processes, in turn; their errors; and that none of them stays."""

import os

import pytest
from in_processes import dying, numbers

from xmore.files.errors import DatasetError, ModelError
from xmore.files.processes import shared_out


def test_items_of_processes_are_taken_in_turn():
    found = list(shared_out(numbers, [(3,), (1,), (2,)]))
    assert [i for i, _ in found] == [0, 0, 0, 1, 1, 2]
    assert len({pid for _, pid in found} | {os.getpid()}) == 4
    assert not any(os.path.exists(f"/proc/{pid}") for _, pid in found)


def test_errors_of_processes_are_told():
    found = []
    with pytest.raises(DatasetError, match="the third"):
        for item in shared_out(numbers, [(9,), (9, 2)]):
            found.append(item[0])
    assert found == [0, 0, 1, 1, 2]
    with pytest.raises(ModelError, match=r"ended with code 9\. Run the same command again"):
        list(shared_out(dying, [(1,)]))
