import numpy as np
import pytest
import torch
from PIL import Image
from stand_ins.families import write_family

from xray_vqa.errors import ModelUnavailable
from xray_vqa.inference.drawing import draw_heat
from xray_vqa.inference.explain import HeatMap, explain
from xray_vqa.modeling.branch_rows import decoder_of
from xray_vqa.modeling.loading import load_model
from xray_vqa.modeling.prompt_tree import build_row
from xray_vqa.modeling.registry import SPECS
from xray_vqa.modeling.relevance import log_odds, relevance, see


@pytest.fixture(scope="module")
def tiny(tiny_model_dir):
    return load_model(str(tiny_model_dir), device="cpu")


@pytest.fixture(scope="module")
def scan():
    pixels = np.random.default_rng(0).integers(0, 255, (90, 170, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_a_map_is_finite_normalised_and_of_the_scans_size(tiny, scan):
    maps = explain(tiny, scan, ["Gun", "Knife", "Gun"])
    assert list(maps) == ["Gun", "Knife"]
    for heat in maps.values():
        assert np.isfinite(heat.values).all()
        assert heat.values.min() >= 0
        assert heat.values.max() == 1
        assert heat.at_pixels().shape == (90, 170)
        assert heat.picture().size == draw_heat(scan, heat.at_pixels()).size == scan.size
        rows, columns = heat.values.shape
        assert heat.cell_wh == (170 / columns, 90 / rows)


def test_the_model_is_left_as_it_was(tiny, scan):
    weights = list(tiny.base.parameters())
    asks = [weight.requires_grad for weight in weights]
    with torch.no_grad():
        explain(tiny, scan, ["Gun"])
        assert not torch.is_grad_enabled()
    assert [weight.requires_grad for weight in weights] == asks
    assert all(weight.grad is None for weight in weights)
    assert not tiny.base.training


@pytest.mark.parametrize("model_type", SPECS)
def test_of_every_family_what_is_explained_is_what_serving_answers(model_type, tmp_path, scan, monkeypatch):
    """The log-odds that are differentiated are those of serving, and moving a hot token moves them."""
    loaded = load_model(str(write_family(model_type, tmp_path)), device="cpu")
    frame = torch.from_numpy(np.array(loaded.processor.resize(scan)))
    encoder, grid_hw = loaded.encoder, loaded.processor.grid_hw((frame.shape[1], frame.shape[0]))
    probes = [encoder.probe(name) for name in ("Gun", "Knife")]
    _, (logits,) = decoder_of(loaded).open([frame], [probes])
    prefix, start = encoder.prefix(grid_hw[0] * grid_hw[1])
    visual = see(loaded, frame)
    for name, probe, served in zip(("Gun", "Knife"), probes, logits, strict=True):
        row = build_row(prefix, start, grid_hw, [probe])
        with torch.no_grad():
            whole = float(log_odds(loaded, row, visual))
            flat = float(log_odds(loaded, row, [each.mean(dim=0, keepdim=True).expand_as(each) for each in visual]))
        assert whole == pytest.approx(float(served[encoder.yes_id] - served[encoder.no_id]), abs=1e-4)
        # What all tokens add is the whole way from the baseline, where the path has steps enough.
        monkeypatch.setattr("xray_vqa.modeling.relevance.PATH_STEPS", 128)
        added = float(relevance(loaded, frame, [name])[name].sum())
        assert added == pytest.approx(whole - flat, abs=0.01 * abs(whole - flat) + 1e-4)


def test_an_unknown_family_is_refused_by_name(tiny, scan):
    from copy import copy
    from dataclasses import replace

    other = copy(tiny)
    other.spec = replace(tiny.spec, model_type="new_vl", is_known=False)
    with pytest.raises(ModelUnavailable, match="new_vl"):
        explain(other, scan, ["Gun"])


def test_a_flat_map_is_cold_not_hot():
    assert HeatMap(np.zeros((3, 4), np.float32), (100, 80)).picture().getextrema() == (0, 0)


@pytest.mark.slow
def test_without_its_hottest_fifth_a_scan_loses_more_of_its_score_than_without_a_random_fifth(tmp_path):
    from PIL import ImageFilter

    from xray_vqa.dataset.layout import read_split
    from xray_vqa.inference.engines.transformers import TransformersEngine
    from xray_vqa.modeling.branch_rows import decoder_of
    from xray_vqa.simulation.writer import SynthSettings, write_dataset

    write_dataset(tmp_path, {"test": 16}, SynthSettings(seed=11, clean_share=0.0), 1)
    split, loaded = read_split(tmp_path, "test"), load_model("nano", device="cpu")
    engine, rng = TransformersEngine.of(decoder_of(loaded)), np.random.default_rng(0)
    hottest, random = [], []
    for record in split.records:
        image, category = split.image(record), record.categories[0]
        heat = explain(loaded, image, [category])[category].at_pixels()
        blurred, cells = image.filter(ImageFilter.GaussianBlur(20)), rng.random((12, 16)).astype(np.float32)
        noise = np.asarray(Image.fromarray(cells).resize(image.size, Image.Resampling.NEAREST))
        pictures = [image]
        for values in (heat, noise):
            hidden = Image.fromarray(values >= np.quantile(values, 0.8))
            pictures.append(Image.composite(blurred, image, hidden))
        whole, without_hottest, without_random = (
            reading.scores[category].probability for reading in engine.read(pictures, [category], {})
        )
        hottest.append(whole - without_hottest)
        random.append(whole - without_random)
    assert np.mean(hottest) > 2 * np.mean(random)
    assert np.mean(hottest) > 0.2
