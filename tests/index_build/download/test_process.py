"""The download's process ends with the one that has started it, whatever it is at."""

import os
import signal
import subprocess
import sys

from index_build.download.images import MODULE

SLOW = "print('importing', flush=True)\nimport time\ntime.sleep(300)\n"


def test_it_goes_with_its_parent_while_it_still_imports(tmp_path):
    """Its input closes when a parent ends, even by kill -9."""
    (tmp_path / "img2dataset.py").write_text(SLOW)
    process = subprocess.Popen(
        [sys.executable, "-m", MODULE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert process.stdout.readline() == b"importing\n"
    process.stdin.close()
    assert process.wait(60) == -signal.SIGKILL
    process.stdout.close()
