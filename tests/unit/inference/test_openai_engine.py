"""The engine that asks a server, with a tiny model behind it: equal scores, and bad days on which no bag is cleared."""

from collections.abc import Iterator

import pytest
from stand_ins.chat_server import SOME, ChatServer, picture, running_chat_server

from xray_vqa.config.loading import load_policy
from xray_vqa.config.serve import EngineSettings
from xray_vqa.core.calibration import Calibration, write_calibration
from xray_vqa.core.inspection import UNSURE, Action, Scan
from xray_vqa.core.policy import Policy
from xray_vqa.core.prompts import SYSTEM, box_text, probe_text
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.errors import AnswerUnreadable, ConfigError, ModelUnavailable
from xray_vqa.inference.engine import Engine, EngineInfo
from xray_vqa.inference.engines import open_engine
from xray_vqa.inference.engines.transformers import TransformersEngine
from xray_vqa.inference.inspector import Inspector
from xray_vqa.modeling.branch_rows import decoder_of
from xray_vqa.modeling.loading import CARD_NAME


@pytest.fixture
def server(tiny) -> Iterator[ChatServer]:
    with running_chat_server(tiny) as running:
        yield running


def engine_of(server: ChatServer, model: str = "", **settings) -> Engine:
    settings = {"server_url": server.address, "call_timeout_s": 120, **settings}
    return open_engine("openai", model or str(server.loaded.weights_dir), settings=EngineSettings(**settings))


def started(server: ChatServer, **settings) -> Engine:
    engine = engine_of(server, **settings)
    engine.start()
    return engine


def test_scores_places_and_answers_are_those_of_the_model_in_this_process(server, tiny):
    images = [picture(1), picture(2, (84, 140))]
    own, asked = TransformersEngine.of(decoder_of(tiny)), started(server)
    place_from = {"Knife": 0.0}
    expected, found = (engine.read(images, SOME, place_from) for engine in (own, asked))
    for ours, theirs in zip(expected, found, strict=True):
        for name in SOME:
            assert theirs.scores[name].probability == pytest.approx(ours.scores[name].probability, abs=1e-3)
        assert theirs.boxes == ours.boxes
    questions = [["What is in the bag?"], []]
    assert asked.ask(images, questions, 6) == own.ask(images, questions, 6)
    assert asked.loaded is None
    asked.close()
    own.probe()


def test_a_server_with_openais_own_parameters_alone_gives_the_same_scores(server, tiny):
    server.plain = True
    asked = started(server)
    (found,), (expected,) = (
        each.read([picture(3)], SOME, {}) for each in (asked, TransformersEngine.of(decoder_of(tiny)))
    )
    for name in SOME:
        assert found.scores[name].probability == pytest.approx(expected.scores[name].probability, abs=1e-3)
    asked.close()


QWEN_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}"
    "<|im_end|>\n{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' or 'image' in "
    "content or 'image_url' in content %}<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}"
    "{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""That of Qwen2.5-VL, without its videos."""


@pytest.mark.parametrize("template", [None, QWEN_TEMPLATE], ids=["nano's", "Qwen2.5-VL's"])
@pytest.mark.parametrize("text", [*map(probe_text, CATEGORIES), box_text("3D Gun"), box_text("Gun") + "012345678901"])
def test_a_chat_template_makes_the_prompt_of_the_tree(tiny, template, text):
    encoder = tiny.encoder
    user = [{"type": "image"}, {"type": "text", "text": text}]
    ids = encoder.tokenizer.apply_chat_template(
        [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}],
        chat_template=template,
        tokenize=True,
        return_dict=False,
        add_generation_prompt=False,
        continue_final_message=True,
    )
    branch = encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == [*encoder.prefix(1)[0], *branch]
    if text.endswith(":"):
        assert tuple(branch) == encoder.probe(text[:-1]).prompt


def test_what_the_server_gets_needs_no_further_resizing_and_has_a_name_of_its_own(server, tiny):
    asked = started(server)
    server.requests.clear()
    asked.read([picture(4, (301, 203))] * 2, SOME, {})
    parts = [request["messages"][1]["content"][0] for request in server.requests]
    by_name = {part["uuid"]: part["image_url"]["url"] for part in parts if part["image_url"]}
    assert len(parts) == 2 * len(SOME)
    assert len(by_name) == len({part["uuid"] for part in parts}) == 2  # though both are the same picture
    assert sum(part["image_url"] is not None for part in parts) == 2  # the others find it under its name
    assert len(set(by_name.values())) == 1
    assert next(iter(by_name.values())).startswith("data:image/png;base64,")
    assert all(request["max_tokens"] == 1 and request["temperature"] == 0 for request in server.requests)
    asked.close()


def test_a_server_that_forgets_pictures_gets_them_again(server):
    asked = started(server)
    (expected,) = asked.read([picture(4)], SOME, {})
    server.keeps_pictures = False
    (found,) = asked.read([picture(4)], SOME, {})
    assert found.scores == expected.scores
    server.requests.clear()
    asked.read([picture(4)], SOME, {})
    assert all(request["messages"][1]["content"][0]["image_url"] for request in server.requests)
    asked.close()


def test_the_first_request_of_a_scan_is_answered_before_the_others_and_no_more_than_allowed_are_under_way(server):
    asked = started(server, server_concurrency=2)
    server.most_under_way = 0
    asked.read([picture(5)], SOME, {})
    assert server.most_under_way <= 2
    assert server.requests[-3]["messages"][1]["content"][1]["text"] == probe_text(SOME[0])
    asked.close()


def test_a_category_whose_yes_is_not_in_the_list_is_unsure_and_no_bag_is_cleared(server):
    asked = started(server)
    server.fault = "no_yes"
    (reading,) = asked.read([picture(6)], SOME, {"Knife": 0.0})
    assert reading.scores == dict.fromkeys(SOME, UNSURE)
    assert reading.boxes == {}
    asked.close()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("error", ModelUnavailable),
        ("busy", ModelUnavailable),
        ("cut", ModelUnavailable),
        ("drop", ModelUnavailable),
        ("other_model", ModelUnavailable),
        ("nonsense", AnswerUnreadable),
        ("empty", AnswerUnreadable),
        ("no_logprobs", AnswerUnreadable),
        ("certain", AnswerUnreadable),
        ("resizes", AnswerUnreadable),
        ("ends_the_turn", AnswerUnreadable),
    ],
)
def test_on_a_bad_day_nothing_is_read_and_the_next_call_is_answered_again(server, fault, error):
    asked = started(server)
    server.fault = fault
    with pytest.raises(error):
        asked.read([picture(7)], SOME, {})
    if error is ModelUnavailable:
        with pytest.raises(ModelUnavailable):
            asked.probe()
    server.fault = ""
    (reading,) = asked.read([picture(7)], SOME[:1], {})
    assert reading.scores[SOME[0]].probability is not None
    asked.close()


def test_one_lost_connection_is_forgiven(server):
    asked = started(server)
    server.fault, server.once = "drop", True
    (reading,) = asked.read([picture(8)], SOME[:1], {})
    assert reading.scores[SOME[0]].probability is not None
    asked.close()


def test_a_server_that_says_words_for_a_place_leaves_the_finding_without_one(server):
    asked = started(server)
    server.fault = "words"
    (reading,) = asked.read([picture(9)], SOME[:1], {SOME[0]: 0.0})
    assert reading.scores[SOME[0]].probability is not None
    assert reading.boxes == {SOME[0]: ()}
    asked.close()


@pytest.mark.parametrize("fault", ["ends_the_turn", "resizes", "error", "nonsense"])
def test_a_server_that_would_ask_the_model_something_else_is_not_started_on(server, fault):
    server.fault = fault
    with pytest.raises(ModelUnavailable):
        engine_of(server).start()


def test_the_model_has_to_be_named_where_there_are_several_and_to_be_there(server):
    with pytest.raises(ModelUnavailable, match="no model 'qwen'"):
        engine_of(server, server_model="qwen").start()
    server.models = ("served", "other")
    with pytest.raises(ModelUnavailable, match="XRAY_VQA_SERVER_MODEL"):
        engine_of(server).start()
    asked = engine_of(server, server_model="other")
    assert asked.start().model_name == "other"
    asked.close()


def test_a_server_that_is_not_there_and_an_address_that_is_missing_are_said():
    with pytest.raises(ConfigError, match="XRAY_VQA_SERVER_URL"):
        open_engine("openai", "nano", settings=EngineSettings())
    asked = open_engine("openai", "nano", settings=EngineSettings(server_url="http://127.0.0.1:9/v1"))
    with pytest.raises(ModelUnavailable, match=r"127\.0\.0\.1:9"):
        asked.start()
    with pytest.raises(ModelUnavailable):
        asked.read([picture(1)], SOME, {})


def test_the_key_is_read_from_the_variable_that_is_named(server, monkeypatch):
    server.key = "secret"
    with pytest.raises(ModelUnavailable, match="401"):
        started(server, server_model="served")
    monkeypatch.setenv("OUR_KEY", "secret\n")
    started(server, server_key_variable="OUR_KEY").close()


def info_of(server: ChatServer, model: str, **settings) -> EngineInfo:
    asked = engine_of(server, model, **settings)
    try:
        return asked.start()
    finally:
        asked.close()


def test_weights_that_nobody_knows_have_no_calibration_and_clear_nothing(server, tmp_path, caplog):
    for path in server.loaded.weights_dir.iterdir():
        if path.suffix != ".safetensors" and path.name != CARD_NAME:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    info = info_of(server, str(tmp_path))
    assert info.identity.model_digest == ""
    assert info.model_version == "served@unknown"
    assert "nobody says which weights" in caplog.text
    write_calibration(tmp_path, Calibration(identity=info.identity, thresholds={}, measured_on="", num_scans=1))
    assert not info_of(server, str(tmp_path)).is_calibrated
    told = info_of(server, str(tmp_path), server_digest="0123456789abcdef")
    assert told.identity.model_digest == "0123456789abcdef"
    write_calibration(tmp_path, Calibration(identity=told.identity, thresholds={}, measured_on="", num_scans=1))
    assert info_of(server, str(tmp_path), server_digest="0123456789abcdef").is_calibrated


@pytest.mark.parametrize(("fault", "reason"), [("hang", "unavailable"), ("nonsense", "unreadable")])
def test_a_scan_that_the_server_does_not_answer_goes_to_a_person(server, fault, reason):
    policy: Policy = load_policy()
    inspector = Inspector(engine_of(server, call_timeout_s=6), policy)
    inspector.start()
    server.fault = fault
    (inspection,) = inspector.inspect([Scan("1", picture(10))])
    assert inspection.decision.action is Action.MANUAL_INSPECTION
    assert inspection.decision.degraded
    assert inspection.engine_faults == (reason,)
    server.fault = ""
    server.released.set()
    inspector.engine.probe()
    inspector.engine.close()
