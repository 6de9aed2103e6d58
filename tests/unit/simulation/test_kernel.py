"""A compiled kernel is never older than the sources it was compiled from."""

from xray_vqa.simulation.kernel import _drop_stale


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
