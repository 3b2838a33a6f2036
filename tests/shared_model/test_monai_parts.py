"""MONAI without the packages that nothing here uses: the same bits, and they can be had afterwards."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOADED = "print(sorted(name for name in EXTRAS if name in sys.modules))"
USE = """
import hashlib, numpy, torch
from shared_model import monai_parts as parts
from shared_model.config import ModelConfig
from shared_model.network import build_network
torch.manual_seed(1)
torch.set_num_threads(1)
volume = parts.NormalizeIntensity(nonzero=True, channel_wise=True)(numpy.random.default_rng(1).random((4, 40, 64, 32)))
changes = parts.Compose([parts.RandFlip(0.5, 1), parts.RandScaleIntensity(0.1, 1.0)]).set_random_state(3)
images = changes(torch.as_tensor(volume, dtype=torch.float32))[None]
network = build_network(ModelConfig(preset="tiny"), ("wt",)).eval()
with torch.no_grad():
    out = parts.sliding_window_inference(images, (32, 64, 32), 2, lambda x: network.backbone(x)[1], 0.5, "gaussian")
print(hashlib.sha256(out.numpy().tobytes()).hexdigest(), parts.generate_spatial_bounding_box(volume > 1))
"""


def said(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_extras_are_not_read_along_but_can_be_afterwards() -> None:
    code = f"import sys\nfrom shared_model.monai_parts import EXTRAS\n{LOADED}\nimport pandas, scipy.stats\n{LOADED}"
    before, after = said(code).splitlines()
    assert before == "[]"
    assert "'pandas'" in after and "'scipy.stats'" in after


def test_another_thread_reads_them_meanwhile() -> None:
    said("""
import threading
from shared_model.monai_parts import without_extras
found = []
def read():
    import scipy.stats
    found.append(scipy.stats)
with without_extras():
    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert found
    import scipy.stats
    try:
        import pandas
    except ModuleNotFoundError as error:
        assert error.name == "pandas"
    else:
        raise AssertionError("pandas was read")
import pandas
""")


def test_the_parts_give_the_bits_that_they_give_with_all_extras() -> None:
    whole = f"import monai, sys\nassert 'scipy.signal' in sys.modules\n{USE}"
    assert said(USE) == said(whole)
