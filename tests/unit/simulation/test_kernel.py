"""A compiled kernel is never older than the sources it was compiled from, and computes the same as its cached copy."""

import os
import subprocess
import sys

import numpy as np
from numba import njit

from xray_vqa.simulation.kernel import _drop_stale, has_to_be_compiled, second_process
from xray_vqa.simulation.primitives import Builder
from xray_vqa.simulation.raster import LineIntegrals, draw_item, draw_nothing
from xray_vqa.simulation.view import open_view


def test_kernels_of_other_sources_are_dropped_and_own_ones_kept(tmp_path):
    cached = tmp_path / "raster.draw_item-1.py311.nbi"
    cached.write_bytes(b"compiled from what stood here before")
    _drop_stale(str(tmp_path))
    assert not cached.exists()
    cached.write_bytes(b"compiled from what stands here now")
    _drop_stale.cache_clear()
    _drop_stale(str(tmp_path))
    assert cached.exists()


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path):
    (tmp_path / "file").touch()
    _drop_stale(str(tmp_path / "file" / "cache"))


def test_what_the_second_process_compiles_is_what_drawing_needs():
    draw_nothing()
    b = Builder(np.random.default_rng(0))
    b.prism([(-1, -1), (1, -1), (0, 1)], 0, 1, "steel", rounding=0.2)
    LineIntegrals((64, 48)).draw(b.finish("wedge"), np.eye(3), np.zeros(3), 1.0, 1.0, open_view((64, 48), 0.2))
    assert len(draw_item.signatures) == 1


_DIGEST_OF_BAGS = """
import hashlib
from xray_vqa.simulation.simulate import ScanStream
bags = ScanStream(seed=1, size_wh=(168, 126))
print(hashlib.sha256(b"".join(bags.scan(i).image.tobytes() for i in range(40))).hexdigest())
"""


def test_the_process_that_compiles_draws_the_same_bytes_as_those_after_it(tmp_path):
    def digest_of_bags():
        return subprocess.run(
            [sys.executable, "-c", _DIGEST_OF_BAGS],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    compiled, cached = digest_of_bags(), digest_of_bags()
    assert any(tmp_path.rglob("sensor.detect-*.nbi"))
    assert compiled == cached


def test_a_second_process_that_fails_stops_nothing():
    done = False
    with second_process("raise SystemExit(3)"):
        done = True
    assert done


def test_what_no_disk_keeps_is_not_compiled_elsewhere():
    """As in a read-only installation of a user without a home folder."""
    assert not has_to_be_compiled(njit(lambda x: x))
