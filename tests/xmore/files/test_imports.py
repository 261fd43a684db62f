"""What is imported without the garbage collector can be used, and leaves nothing behind."""

import subprocess
import sys

CODE = """
import gc
from xmore.files.imports import load_first

load_first("duckdb")
assert gc.isenabled()
load_first("no_such_module")
"""
MODEL = """
import sys
from xmore.files.imports import load_first

load_first("xmore.models.encoder")
print(sorted({"sklearn", "wandb", "transformers"} & set(sys.modules)))
import sklearn
"""


def test_a_module_is_loaded_and_the_process_ends_without_a_word_about_it():
    answer = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert answer.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'no_such_module'"


def test_a_model_is_loaded_without_what_its_libraries_could_use_too():
    answer = subprocess.run([sys.executable, "-c", MODEL], capture_output=True, text=True)
    assert (answer.stdout.strip(), answer.returncode) == ("['transformers']", 0), answer.stderr
