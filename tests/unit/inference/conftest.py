"""What the tests of engines share."""

import pytest
from stand_ins.chat_server import answering_model

from xray_vqa.modeling.loading import LoadedModel


@pytest.fixture(scope="package")
def tiny(tiny_model_dir) -> LoadedModel:
    return answering_model(tiny_model_dir)
