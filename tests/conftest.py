"""What many tests share: a tiny random Qwen2.5-VL with a real tokenizer, made once a session."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from stand_ins.postgres import Lacking, Postgres

settings.register_profile("untimed", deadline=None)  # the first example compiles, and machines are shared
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def own_environment():
    """What a test sets in the environment, as trackers are told by it, is not there for the next one."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random nano of two vision and one text layer, all as a trained one has it."""
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    from xray_vqa.core.prompts import PROMPT_VERSION
    from xray_vqa.core.taxonomy import CATEGORIES
    from xray_vqa.modeling.loading import ModelCard, write_card
    from xray_vqa.modeling.nano import PROCESSOR, build_config, train_tokenizer

    model_dir = tmp_path_factory.mktemp("tiny-model")
    tokenizer = train_tokenizer(["What is in the bag? There is a gun in the upper-left region."] * 3)
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(build_config(tokenizer, vision_depth=2, text_depth=1))
    model.save_pretrained(model_dir)
    tokenizer.save_pretrained(model_dir)
    PROCESSOR.save(model_dir)
    card = ModelCard(
        prompt_version=PROMPT_VERSION, processor_version=PROCESSOR.version, covered_categories=list(CATEGORIES)
    )
    write_card(model_dir, card)
    return model_dir


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server for the session; skips where none can be started."""
    try:
        server = Postgres()
    except Lacking as error:
        pytest.skip(str(error))
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database of each kind that an audit store can be in."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/audit.sqlite3"
    return request.getfixturevalue("postgres").emptied()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount a disk of some size, or give one that is mounted another; skips where that is not allowed."""
    mounted: list[Path] = []

    def mount(size: str, at: Path | None = None) -> Path:
        folder = at or tmp_path / f"disk{len(mounted)}"
        folder.mkdir(exist_ok=True)
        options = f"size={size}" + (",remount" if folder in mounted else "")
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
        if folder not in mounted:
            mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # a file in it may still be mapped into memory
