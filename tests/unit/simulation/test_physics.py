"""Materials, detector and palette: what the beam does and what colour it becomes."""

import numpy as np
import pytest

from xray_vqa.simulation.detector import estimate_atomic_number, log_readings
from xray_vqa.simulation.materials import load_materials, material
from xray_vqa.simulation.palette import draw_look
from xray_vqa.simulation.profile import PROFILE_NAMES, load_profile
from xray_vqa.simulation.sensor import Sensor


def slab_readings(name: str, thickness_cm: float) -> tuple[float, float]:
    stuff = material(name)
    low, high = log_readings(stuff.polyethylene_cm * thickness_cm, stuff.copper_cm * thickness_cm)[:, 0, 0]
    return float(low), float(high)


def picture_of(name: str, thickness_cm: float, profile: str) -> np.ndarray:
    """Return the mean colour of a wide slab."""
    low, high = slab_readings(name, thickness_cm)
    p = np.zeros((2, 32, 48), np.float32)
    p[0], p[1] = low, high
    return (
        Sensor((48, 32))
        .develop(p, draw_look(load_profile(profile), 3), noise_seed=1)[8:-8, 8:-8]
        .reshape(-1, 3)
        .mean(0)
    )


@pytest.mark.parametrize("name", list(load_materials()))
def test_soft_photons_are_absorbed_more_than_hard_ones(name):
    for thickness_cm in (0.01, 0.1, 1.0):
        low, high = slab_readings(name, thickness_cm)
        assert low > high > 0


def test_readings_grow_with_thickness_and_harden():
    readings = [slab_readings("steel", thickness) for thickness in (0.05, 0.1, 0.5, 1.0, 2.0)]
    highs = [high for _, high in readings]
    ratios = [low / high for low, high in readings]
    assert highs == sorted(highs)
    assert ratios == sorted(ratios, reverse=True)


def test_slabs_agree_with_the_full_spectrum():
    # 146-bin Beer-Lambert with the spectrum of bake.py, computed once: (p_low, p_high)
    for name, thickness_cm, expected in REFERENCE_SLABS:
        assert slab_readings(name, thickness_cm) == pytest.approx(expected, abs=0.02)


REFERENCE_SLABS = (
    ("water", 5.0, (1.0045, 0.8759)),
    ("aluminium", 1.0, (0.7117, 0.506)),
    ("steel", 0.3, (1.8522, 1.004)),
)


def test_atomic_number_rises_from_plastic_over_aluminium_to_steel():
    z = [
        float(estimate_atomic_number(*slab_readings(name, t)))
        for name, t in (("polyethylene", 3), ("water", 3), ("aluminium", 1), ("steel", 0.2))
    ]
    assert z == sorted(z)
    assert z[0] < 7 < z[1] < 9
    assert 12 < z[2] < 15
    assert 22 < z[3] < 28


@pytest.mark.parametrize("profile", PROFILE_NAMES)
def test_water_is_orange_aluminium_green_steel_blue(profile):
    red, green, blue = picture_of("water", 3, profile)
    assert red > green > blue
    red, green, blue = picture_of("aluminium", 0.6, profile)
    assert green > red
    red, green, blue = picture_of("steel", 0.2, profile)
    assert blue > green > red


@pytest.mark.parametrize("profile", PROFILE_NAMES)
def test_air_is_the_background(profile):
    settings = load_profile(profile)
    image = Sensor((64, 48)).develop(np.zeros((2, 48, 64), np.float32), draw_look(settings, 0), noise_seed=0)
    assert np.abs(np.median(image.reshape(-1, 3), 0) - settings.palette.orange[-1]).max() <= 2


def test_explosives_and_food_share_their_hue():
    def ratio(name: str) -> float:
        low, high = slab_readings(name, 2.0)
        return low / high

    assert ratio("rdx") == pytest.approx(ratio("water"), abs=0.03)
