"""Language models over real sockets: the vendors' own SDKs against a server that speaks as theirs do."""

import asyncio
import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bags import POLICY, make_record
from PIL import Image
from stand_ins.llm import DIALECTS, WRONG_KEY, Behaviour, LlmServer, TokenPrice, running

from xray_vqa.config.generate import ProviderSettings
from xray_vqa.config.llm import LlmSettings, load_llm_config
from xray_vqa.core.geometry import Box
from xray_vqa.core.records import PairMetadata, ScanRecord, VQAPair
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.errors import AnswerUnreadable, ConfigError, Incomplete, ProviderError
from xray_vqa.generation.facts import read_facts
from xray_vqa.generation.plan import Planner
from xray_vqa.generation.providers import (
    LLM_PROVIDERS,
    Provider,
    Reply,
    Request,
    Throttled,
    Unavailable,
    llm_settings,
    open_provider,
    read_reply,
)
from xray_vqa.generation.validation import check_image

pytest.importorskip("anthropic", reason="the extra `generate` is not installed: no anthropic")
pytest.importorskip("openai", reason="the extra `generate` is not installed: no openai")

from xray_vqa.generation.providers.anthropic import AnthropicProvider
from xray_vqa.generation.providers.openai import OpenAIProvider
from xray_vqa.generation.providers.openai_compatible import OpenAICompatibleProvider

KINDS = {
    "anthropic": (AnthropicProvider, "claude-haiku-5-5", ""),
    "openai": (OpenAIProvider, "gpt-6-luna", "/v1"),
    "openai_compatible": (OpenAICompatibleProvider, "local-model", "/v1"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[LlmServer]:
    with running() as found:
        yield found


@pytest.fixture(autouse=True)
def _calm(server: LlmServer):
    server.behaviour = Behaviour()
    server.ledger.clear()
    server.requests.clear()


def make_request(tmp_path: Path, *categories: str, size_wh: tuple[int, int] = (300, 300), **changes: Any) -> Request:
    """A grey scan with items, its file named after the first one as in the published sets."""
    record = make_record(7, categories or ("Gun", "Knife"))
    path = f"train/images/{record.categories[0].replace(' ', '_')}_B1_L2.jpg"
    scale = (size_wh[0] / record.width, size_wh[1] / record.height)
    boxes = [Box.from_xywh(values).scaled(*scale).as_xywh() for values in record.bboxes if values]
    record = record.model_copy(
        update={
            "image_path": path,
            "image_filename": Path(path).name,
            "original_name": Path(path).name,
            "caption": "A gun beside a knife.",
            "width": size_wh[0],
            "height": size_wh[1],
            "bboxes": boxes,
        }
    )
    image_file = tmp_path / path
    image_file.parent.mkdir(parents=True, exist_ok=True)
    Image.radial_gradient("L").resize(size_wh).convert("RGB").save(image_file)
    slots = Planner(CATEGORIES, POLICY, samples_per_image=6).plan(record).slots
    return Request(record, slots, image_file, CATEGORIES, **changes)


def make_provider(server: LlmServer, name: str, *, api_key: str = "a-key", **settings: Any) -> Provider:
    kind, model, suffix = KINDS[name]
    chosen = {"model": model, "base_url": server.url + suffix, "timeout_s": 10.0} | settings
    return kind(LlmSettings(**chosen), price=server.behaviour.price, api_key=api_key)


def ask(provider: Provider, *requests: Request) -> list[Reply]:
    async def run() -> list[Reply]:
        try:
            return [await provider.generate(request) for request in requests]
        finally:
            await provider.close()

    return asyncio.run(run())


def faults_of(request: Request, reply: Reply) -> list[tuple[int, str]]:
    record = request.record
    facts = read_facts(record, request.annotated)
    pairs = []
    for pair in read_reply(reply).pairs:
        slot = request.slots[pair.slot]
        assert pair.evidence == list(slot.evidence)
        about = PairMetadata(
            image_id=record.image_id,
            question_type=slot.question_type,
            categories=list(facts.present),
            num_categories=len(facts.present),
            generated_by="llm",
            evidence=list(slot.evidence),
            short_answer=slot.short_answer,
            target=slot.target,
        )
        pairs.append(VQAPair(image_path=record.image_path, question=pair.question, answer=pair.answer, metadata=about))
    assert len(pairs) == len(request.slots)
    return check_image(pairs, facts, POLICY)


each = pytest.mark.parametrize("name", LLM_PROVIDERS)


@each
def test_a_scan_comes_back_as_true_pairs(server: LlmServer, name: str, tmp_path: Path):
    request = make_request(tmp_path)
    [reply] = ask(make_provider(server, name), request)
    assert (reply.stop, reply.model) == ("end", KINDS[name][1])
    assert faults_of(request, reply) == []


@each
def test_cost_and_tokens_equal_the_ledger_and_the_prefix_is_cached(server: LlmServer, name: str, tmp_path: Path):
    server._cached.clear()
    request = make_request(tmp_path)
    replies = ask(make_provider(server, name), request, request)
    assert [reply.cost_usd for reply in replies] == pytest.approx([line.usd for line in server.ledger], rel=1e-12)
    for reply, line in zip(replies, server.ledger, strict=True):
        assert reply.input_tokens == line.usage.input_tokens
        assert reply.output_tokens == line.usage.output_tokens
    assert replies[0].cache_write_tokens > 512
    assert replies[0].cache_read_tokens == 0
    assert (replies[1].cache_read_tokens, replies[1].cache_write_tokens) == (replies[0].cache_write_tokens, 0)


@each
def test_no_request_names_the_file(server: LlmServer, name: str, tmp_path: Path):
    request = make_request(tmp_path, "3D Gun", "Knife", complaint="pair 2: the answer does not say 'none'")
    ask(make_provider(server, name), request)
    [(_, headers, body)] = server.requests
    sent = json.dumps([headers, body])
    assert "complaint" in sent
    for word in ("B1_L2", "3D_Gun", "train/images", ".jpg", request.record.sha256, "beside a knife"):
        assert word not in sent


@each
def test_a_large_scan_is_sent_smaller_with_its_boxes(server: LlmServer, name: str, tmp_path: Path):
    request = make_request(tmp_path, "Gun", size_wh=(3000, 1500))
    ask(make_provider(server, name), request)
    [(path, _, body)] = server.requests
    asked = DIALECTS[path].read(body)
    told = json.loads(asked.prompt)
    width, height = told["scan"]["width"], told["scan"]["height"]
    assert max(width, height) <= 2048
    assert image_in(body).size == (width, height)
    x0, y0, x1, y1 = told["facts"][0]["box"]  # of 3000x1500: 300, 150, 700, 350
    assert (x0, y0, x1, y1) == pytest.approx((width * 0.1, height * 0.1, width * 7 / 30, height * 7 / 30), abs=0.5)


def image_in(body: dict[str, Any]) -> Image.Image:
    """The picture in a request of any dialect."""

    def strings(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for inner in value.values():
                yield from strings(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from strings(inner)
        elif isinstance(value, str):
            yield value

    data = max(strings(body.get("input") or body["messages"]), key=len)
    return Image.open(io.BytesIO(base64.b64decode(data.partition("base64,")[2] or data)))


@each
def test_facts_alone_are_sent_where_the_image_is_refused(server: LlmServer, name: str, tmp_path: Path):
    request = make_request(tmp_path, with_image=False)
    request.image_file.unlink()
    [reply] = ask(make_provider(server, name), request)
    [(path, _, body)] = server.requests
    asked = DIALECTS[path].read(body)
    assert asked.image == ""
    assert json.loads(asked.prompt)["scan"]["shown"] is False
    assert faults_of(request, reply) == []


# --- the bad days


@each
def test_too_many_requests_say_how_long_to_wait(server: LlmServer, name: str, tmp_path: Path):
    server.behaviour = Behaviour(retry_after_s=7.5)
    server.behaviour.script.append("throttled")
    with pytest.raises(Throttled, match="429") as caught:
        ask(make_provider(server, name), make_request(tmp_path))
    assert caught.value.retry_after_s == 7.5
    assert len(server.requests) == 1  # the SDK does not try again by itself


@each
def test_a_spend_limit_is_no_rush(server: LlmServer, name: str, tmp_path: Path):
    server.behaviour.script.append("spend_limit")
    with pytest.raises(Incomplete, match="spend limit"):
        ask(make_provider(server, name), make_request(tmp_path))


@each
def test_a_wrong_key_names_the_variable(server: LlmServer, name: str, tmp_path: Path):
    with pytest.raises(Incomplete, match=r"the key is not accepted: check \w+_API_KEY"):
        ask(make_provider(server, name, api_key=WRONG_KEY), make_request(tmp_path))


@each
def test_an_unknown_model_leads_to_the_doctor(server: LlmServer, name: str, tmp_path: Path):
    with pytest.raises(Incomplete, match=r"model 'gpt-4-vision-preview'.*xray-vqa doctor"):
        ask(make_provider(server, name, model="gpt-4-vision-preview"), make_request(tmp_path))


@each
@pytest.mark.parametrize(
    ("fault", "may_have_cost"), [("overloaded", False), ("timeout", True), ("cut", True), ("broken", True)]
)
def test_a_failure_for_now_says_if_it_may_have_cost(
    server: LlmServer, name: str, fault: Any, may_have_cost: bool, tmp_path: Path
):
    server.behaviour.script.append(fault)
    with pytest.raises(Unavailable) as caught:
        ask(make_provider(server, name, timeout_s=0.5), make_request(tmp_path))
    assert caught.value.may_have_cost is may_have_cost
    assert bool(server.ledger) is may_have_cost
    assert server.sums()["delivered_requests"] == 0


@each
def test_nobody_at_the_address_costs_nothing(server: LlmServer, name: str, tmp_path: Path):
    with pytest.raises(Unavailable, match="ConnectError") as caught:
        ask(make_provider(server, name, base_url="http://127.0.0.1:9/v1"), make_request(tmp_path))
    assert caught.value.may_have_cost is False


@each
@pytest.mark.parametrize(
    ("fault", "stop", "said"),
    [("refusal", "refusal", "refused"), ("truncated", "truncated", "cut off"), ("malformed", "end", "not the JSON")],
)
def test_an_unusable_reply_is_paid_for(server: LlmServer, name: str, fault: Any, stop: str, said: str, tmp_path: Path):
    server.behaviour.script.append(fault)
    [reply] = ask(make_provider(server, name), make_request(tmp_path))
    assert reply.stop == stop
    assert reply.cost_usd == pytest.approx(server.ledger[0].usd, rel=1e-12)
    assert reply.cost_usd > 0
    with pytest.raises(AnswerUnreadable, match=said):
        read_reply(reply)


@each
def test_a_request_that_the_rules_forbid_is_a_refusal_and_free(server: LlmServer, name: str, tmp_path: Path):
    server.behaviour.script.append("policy")
    [reply] = ask(make_provider(server, name), make_request(tmp_path))
    assert (reply.stop, reply.cost_usd) == ("refusal", 0.0)
    assert "content_policy_violation" in reply.text


@each
def test_a_broken_scan_fails_by_itself(server: LlmServer, name: str, tmp_path: Path):
    request = make_request(tmp_path)
    request.image_file.write_bytes(request.image_file.read_bytes()[:2000])
    with pytest.raises(ProviderError, match="cut off or damaged"):
        ask(make_provider(server, name), request)
    assert not server.requests


@each
def test_the_services_own_count_of_what_is_left_is_told(server: LlmServer, name: str, tmp_path: Path):
    provider = make_provider(server, name)
    assert provider.limits.remaining_requests is None
    ask(provider, make_request(tmp_path))
    assert (provider.limits.remaining_requests, provider.limits.remaining_tokens) == (4000, 80000)
    assert provider.limits.requests_reset_s == pytest.approx(30, abs=2)
    assert provider.limits.tokens_reset_s == pytest.approx(90 if name != "anthropic" else 30, abs=2)


# --- answers that the vendors document and seldom send

USAGE = {"input_tokens": 100, "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 0},
         "output_tokens": 7}  # fmt: skip


def response(**changes: Any) -> dict[str, Any]:
    """A body of the Responses API."""
    return {"status": "completed", "model": "gpt-6-luna", "output": [], "usage": USAGE} | changes


def message(**changes: Any) -> dict[str, Any]:
    """A body of the Messages API."""
    usage = {"input_tokens": 40, "cache_read_input_tokens": 60, "cache_creation_input_tokens": None, "output_tokens": 7}
    content = [{"type": "thinking", "thinking": "...", "signature": "..."}, {"type": "text", "text": "{}"}]
    return {"model": "claude-haiku-5-5", "content": content, "stop_reason": "end_turn", "usage": usage} | changes


def completion(**changes: Any) -> dict[str, Any]:
    """A body of Chat Completions."""
    choice = {"message": {"role": "assistant", "content": "{}"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 40, "completion_tokens": 7}
    return {"model": "local-model", "choices": [choice], "usage": usage} | changes


def ask_with_body(server: LlmServer, name: str, body: Any, tmp_path: Path) -> Reply:
    server.behaviour.bodies.append(body if isinstance(body, bytes) else json.dumps(body).encode())
    [reply] = ask(make_provider(server, name), make_request(tmp_path))
    return reply


def test_thinking_is_paid_and_not_read(server: LlmServer, tmp_path: Path):
    reply = ask_with_body(server, "anthropic", message(), tmp_path)
    assert (reply.text, reply.stop) == ("{}", "end")
    assert (reply.input_tokens, reply.cache_read_tokens, reply.cache_write_tokens, reply.output_tokens) == (
        40,
        60,
        0,
        7,
    )
    # 40 x 0.10 + 60 x 0.01 + 7 x 0.50 dollars a million
    assert reply.cost_usd == pytest.approx(8.1e-6)


def test_a_full_context_is_a_cut_off_reply(server: LlmServer, tmp_path: Path):
    body = message(stop_reason="model_context_window_exceeded")
    assert ask_with_body(server, "anthropic", body, tmp_path).stop == "truncated"


def test_the_category_of_a_refusal_is_kept(server: LlmServer, tmp_path: Path):
    body = message(stop_reason="refusal", content=[], stop_details={"category": "frontier_llm", "explanation": "why"})
    assert ask_with_body(server, "anthropic", body, tmp_path).text == "frontier_llm: why"


@pytest.mark.parametrize(
    "body",
    [
        response(status="incomplete", incomplete_details={"reason": "content_filter"}),
        response(status="failed", error={"code": "image_content_policy_violation", "message": "weapons"}),
    ],
)
def test_a_filter_that_stops_a_response_is_a_refusal_and_paid(server: LlmServer, body: Any, tmp_path: Path):
    reply = ask_with_body(server, "openai", body, tmp_path)
    assert reply.stop == "refusal"
    assert (reply.input_tokens, reply.cache_read_tokens, reply.output_tokens) == (40, 60, 7)


@pytest.mark.parametrize(
    ("body", "kind", "may_have_cost"),
    [
        (response(status="failed", error={"code": "server_error", "message": ""}), Unavailable, True),
        (response(status="in_progress"), Unavailable, True),
        (response(usage=None), Unavailable, True),
        (response(status="failed", error={"code": "rate_limit_exceeded", "message": ""}), Throttled, None),
        (response(status="failed", error={"code": "image_parse_error", "message": ""}), ProviderError, None),
    ],
)
def test_a_response_that_failed_is_sorted_by_its_code(
    server: LlmServer, body: Any, kind: type[Exception], may_have_cost: bool | None, tmp_path: Path
):
    with pytest.raises(kind) as caught:
        ask_with_body(server, "openai", body, tmp_path)
    assert type(caught.value) is kind
    assert getattr(caught.value, "may_have_cost", None) is may_have_cost


def test_a_refusal_beside_no_content_is_one(server: LlmServer, tmp_path: Path):
    choice = {"message": {"content": None, "refusal": "I cannot."}, "finish_reason": "stop"}
    reply = ask_with_body(server, "openai_compatible", completion(choices=[choice]), tmp_path)
    assert (reply.stop, reply.text) == ("refusal", "I cannot.")


@each
@pytest.mark.parametrize("body", [b"<html>502</html>", b"{}", b"[]", b"", b"\xff\xfe"])
def test_another_programs_answer_may_have_cost(server: LlmServer, name: str, body: bytes, tmp_path: Path):
    with pytest.raises(Unavailable, match="cannot be read") as caught:
        ask_with_body(server, name, body, tmp_path)
    assert caught.value.may_have_cost is True


@pytest.mark.parametrize("body", [completion(choices=[]), completion(usage=None)])
def test_a_priced_completion_needs_its_choice_and_its_usage(server: LlmServer, body: Any, tmp_path: Path):
    with pytest.raises(Unavailable) as caught:
        ask_with_body(server, "openai_compatible", body, tmp_path)
    assert caught.value.may_have_cost is True


# --- money before the call


@each
def test_the_bound_holds_and_the_estimate_is_on_the_high_side(server: LlmServer, name: str, tmp_path: Path):
    request = make_request(tmp_path)
    provider = make_provider(server, name, max_output_tokens=1024)
    most, estimate = provider.most_usd(request), provider.estimate_usd([request] * 3)
    replies = ask(provider, *[request] * 3)
    assert max(reply.cost_usd for reply in replies) <= most
    cost_usd = sum(reply.cost_usd for reply in replies)
    assert cost_usd <= estimate <= 3 * cost_usd


def test_the_bound_is_worked_out_from_bytes_and_the_cap(server: LlmServer, tmp_path: Path):
    output_only = TokenPrice(input=0, cache_read=0, cache_write=0, output=10.0)
    server.behaviour.price = output_only
    provider = make_provider(server, "anthropic", max_output_tokens=2000)
    assert provider.most_usd(make_request(tmp_path)) == pytest.approx(0.02)


def test_no_requests_cost_nothing(server: LlmServer):
    assert make_provider(server, "openai").estimate_usd([]) == 0.0


# --- opening


def test_a_server_of_ones_own_is_free_and_needs_no_key(server: LlmServer, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret")
    settings = LlmSettings(model="local-model", base_url=f"{server.url}/v1", effort="")
    provider = OpenAICompatibleProvider(settings)
    assert provider.paid is False
    [reply] = ask(provider, make_request(tmp_path))
    assert reply.cost_usd == 0.0
    assert reply.output_tokens > 0
    [(_, headers, body)] = server.requests
    assert headers["authorization"] == "Bearer none"  # somebody else's server never sees the key for OpenAI
    assert "reasoning_effort" not in body


def test_an_address_is_needed_for_a_server_of_ones_own():
    with pytest.raises(ConfigError, match="base_url"):
        OpenAICompatibleProvider(LlmSettings(model="local-model"))


@pytest.mark.parametrize("name", ["anthropic", "openai"])
def test_a_missing_key_is_named(name: str, monkeypatch):
    for variable in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "OPENAI_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    settings = ProviderSettings(provider=name)
    with pytest.raises(ConfigError, match=f"set {name.upper()}_API_KEY"):
        open_provider(settings)


@pytest.mark.parametrize(
    ("name", "package"), [("anthropic", "anthropic"), ("openai", "openai"), ("openai_compatible", "openai")]
)
def test_a_missing_package_names_the_extra(name: str, package: str, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda wanted: None)
    with pytest.raises(ConfigError, match=rf"'{package}'.*\[generate\]"):
        open_provider(ProviderSettings(provider=name))


@each
def test_a_run_may_name_another_model_than_the_configuration(name: str):
    default: LlmSettings = getattr(load_llm_config(), name)
    assert llm_settings(ProviderSettings(provider=name)) == default
    other = llm_settings(ProviderSettings(provider=name, model="some-model"))
    assert other == default.model_copy(update={"model": "some-model"})


@each
def test_the_chosen_provider_opens_with_the_configured_model(name: str, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a-key\n")
    monkeypatch.setenv("OPENAI_API_KEY", "a-key\n")
    provider = open_provider(ProviderSettings(provider=name))
    assert provider.name == name
    assert provider.model == getattr(load_llm_config(), name).model


def test_records_of_another_size_than_their_file_are_not_worded(server: LlmServer, tmp_path: Path):
    request = make_request(tmp_path)
    other: ScanRecord = request.record.model_copy(update={"width": 299})
    with pytest.raises(ProviderError, match="data verify"):
        ask(make_provider(server, "anthropic"), Request(other, request.slots, request.image_file, request.annotated))


@each
def test_an_address_that_is_none_is_not_tried_again(server: LlmServer, name: str, tmp_path: Path):
    with pytest.raises(Incomplete, match=r"cannot be asked.*base_url"):
        ask(make_provider(server, name, base_url="localhost:8000/v1"), make_request(tmp_path))
