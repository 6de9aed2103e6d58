"""What fits is known before it is tried, and what does not is divided fairly."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen2_5_VLConfig

from xray_vqa.training.inputs.demand import Demand
from xray_vqa.training.planning.memory import (
    GIB,
    MemoryPlan,
    PassCost,
    PassSettings,
    parts_of,
    pass_cost,
    plan_memory,
    state_bytes,
)

SHAPE_7B = Qwen2_5_VLConfig(
    text_config={
        "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "vocab_size": 152064,
    },
    vision_config={"hidden_size": 1280, "intermediate_size": 3420, "depth": 32, "out_hidden_size": 3584},
)  # fmt: skip
STATE_7B = 17.9 * GIB
"""16.58 GB of weights, 161 million trainable ones of rank 64 at 16 bytes each."""
MEASURED_IMAGE = Demand(tokens=978, patches=2352, answers=72)
"""Of benchmarks/train_throughput.py."""
PLAIN = PassSettings(dropout=0.0, trains_vision=False, compiled=True, fused=True)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=12), st.integers(0, 300))
def test_parts_keep_every_image_in_order_and_stay_within_the_limit(costs: list[int], limit: int):
    parts = parts_of(costs, sum, limit)
    assert [cost for part in parts for cost in part] == costs
    assert all(len(part) == 1 or sum(part) <= limit for part in parts)
    if sum(costs) <= limit:
        assert len(parts) == 1


@given(st.lists(st.integers(1, 100), min_size=2, max_size=12))
def test_halves_are_as_even_as_the_order_allows(costs: list[int]):
    halves = parts_of(costs, sum, sum(costs) - 1)
    best = min(max(sum(costs[:cut]), sum(costs[cut:])) for cut in range(1, len(costs)))
    assert max(map(sum, halves)) <= best


@pytest.mark.parametrize(
    ("dropout", "measured_gib"), [(0.05, 65.0), (0.0, 51.0)]
)  # 8 images on an H200, adapters fused, layers compiled (docs/TRAINING.md)
def test_the_prediction_for_a_7b_is_near_what_an_h200_took(dropout: float, measured_gib: float):
    settings = PassSettings(dropout=dropout, trains_vision=False, compiled=True, fused=True)
    cost = pass_cost(SHAPE_7B, 2, settings, checkpointing=False)
    predicted = (STATE_7B + cost.bytes_of(Demand.total([MEASURED_IMAGE] * 8))) / GIB
    assert predicted == pytest.approx(measured_gib, rel=0.05)
    assert predicted > measured_gib  # the plan may be too careful, not too bold


def test_a_7b_on_a_24_gib_card_is_trained_with_checkpointing_unless_the_user_says_no():
    costs = tuple(pass_cost(SHAPE_7B, 2, PLAIN, checkpointing=again) for again in (False, True))
    batch = [Demand(tokens=1_700, patches=5_120, answers=72)] * 2

    def plan(wanted: bool | None, capacity_gib: float, state: float = STATE_7B) -> MemoryPlan:
        return plan_memory(wanted, state, capacity_gib * GIB, costs, batch, lambda plan: len(plan.parts))  # type: ignore[arg-type]

    assert plan(None, 23.5).checkpointing
    assert plan(None, 23.5).fits
    assert plan(None, 23.5).peak < 23.5 * GIB
    assert not plan(None, 79.0).checkpointing
    refused = plan(False, 23.5)
    assert not refused.checkpointing
    assert not refused.fits
    assert "DOES NOT FIT: set gradient_checkpointing: true" in refused.describe()
    assert len(refused.costs) == 1  # nothing to turn to later either
    assert not plan(True, 16.0).fits


def test_checkpointing_is_also_turned_on_where_it_is_faster_than_many_small_parts():
    costs = PassCost(10, 0, 0, 0), PassCost(1, 0, 0, 0)
    batch = [Demand(tokens=int(GIB), patches=0, answers=0)] * 8

    def plan(seconds_a_pass: float) -> MemoryPlan:
        return plan_memory(
            None, 0, 25 * GIB, costs, batch,
            lambda plan: (8 + seconds_a_pass * len(plan.parts)) * (1.4 if plan.checkpointing else 1),
        )  # fmt: skip

    assert plan(2.0).checkpointing
    assert not plan(0.1).checkpointing
    assert len(plan(0.1).parts) == 4


def test_a_trained_vision_tower_costs_memory_and_a_frozen_one_none():
    frozen = pass_cost(SHAPE_7B, 2, PLAIN, checkpointing=False)
    trained = pass_cost(
        SHAPE_7B, 2, PassSettings(0.0, trains_vision=True, compiled=True, fused=True), checkpointing=False
    )
    assert frozen.patch == 0 < trained.patch
    assert frozen.token == trained.token


def test_weights_gradients_and_optimizer_are_counted_by_what_is_trained():
    model = torch.nn.Sequential(torch.nn.Linear(10, 10, bias=False), torch.nn.Linear(10, 1, bias=False))
    model[0].to(torch.bfloat16).requires_grad_(False)
    assert state_bytes(model) == 100 * 2 + 10 * 4 * 4
    assert state_bytes(model, num_ranks=2) == 100 * 2 + 10 * 4 * 5
