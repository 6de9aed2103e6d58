"""A dataset of a few scans that pairs are written about."""

import pytest
from bags import NUM_IMAGES, make_records, write_scans

from xray_vqa.core.manifest import make_manifest, write_manifest
from xray_vqa.core.taxonomy import CATEGORIES


@pytest.fixture
def dataset(tmp_path):
    root = tmp_path / "scans"
    records = make_records(NUM_IMAGES)
    write_scans(root, records)
    write_manifest(root, make_manifest("synth", annotated_categories=list(CATEGORIES)))
    return root
