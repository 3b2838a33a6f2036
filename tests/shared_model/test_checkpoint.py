"""Weights on a disk that takes no more."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shared_model.checkpoint import read_json, read_tensors, readable, save_tensors, write_tensors
from shared_model.errors import RunError

PROGRAM = """
import resource, sys
from pathlib import Path
import numpy as np
from shared_model.checkpoint import write_tensors

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    write_tensors(Path(sys.argv[1]), {"tensor": np.ones(1000, np.float32)})
except OSError as error:
    sys.exit(error.errno)
"""


def test_a_full_disk_is_the_systems_own_error_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "tensors.safetensors"
    old = {"tensor": np.zeros(3, np.float32)}
    write_tensors(path, old)
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True)
    assert done.returncode == errno.EFBIG, done.stderr
    assert np.array_equal(read_tensors(path)["tensor"], old["tensor"])
    assert list(tmp_path.iterdir()) == [path]


def test_no_folder_is_the_systems_own_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=os.strerror(errno.ENOENT)):
        save_tensors(tmp_path / "none" / "tensors.safetensors", {"tensor": np.ones(1, np.float32)})


@pytest.mark.parametrize("text", ["", "[", "{}", "[1]", '{"norm": {}}', '{"norm": "x"}', '{"norm": 1%s}' % ("0" * 400)])
def test_a_file_of_another_content_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "about.json"
    path.write_text(text)
    with pytest.raises(RunError, match=r"about.json: cannot be read \(\w+\). Restore it"), readable(path, "restore it"):
        float(read_json(path)["norm"])
