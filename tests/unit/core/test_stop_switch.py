import pytest

from xray_vqa.core.policy.stop import StopSwitch

LANES = ("any", "cabin", "hold", "customs")


def stopped_lanes(path):
    return [lane for lane in LANES if StopSwitch(path).is_on(lane)]


def test_without_a_file_nothing_is_stopped(tmp_path):
    assert stopped_lanes(tmp_path / "stop.yaml") == []


@pytest.mark.parametrize(
    ("text", "stopped"),
    [
        ("all: drill", LANES),
        ("cabin: new generator", ("any", "cabin")),
        ("customs: new generator", ("any", "customs")),
        ("{cabin: , hold: }", ("any", "cabin", "hold")),
        ("", LANES),
        ("cabim: misspelt", LANES),
        ("any: misspelt too", LANES),
        ("- cabin", LANES),
        ("{", LANES),
        ("{}", LANES),
    ],
)
def test_a_file_stops_the_lanes_that_it_names_and_all_lanes_where_it_is_not_understood(tmp_path, text, stopped):
    path = tmp_path / "stop.yaml"
    path.write_text(text)
    assert stopped_lanes(path) == list(stopped)


def test_a_file_that_cannot_be_read_stops_every_lane(tmp_path):
    path = tmp_path / "stop.yaml"
    path.write_bytes(b"\xff\xfe")
    assert stopped_lanes(path) == list(LANES)
    path.unlink()
    path.mkdir()
    assert stopped_lanes(path) == list(LANES)


def test_the_switch_works_at_once_both_ways(tmp_path):
    switch = StopSwitch(tmp_path / "stop.yaml")
    assert switch.is_on("hold") is False
    (tmp_path / "stop.yaml").touch()
    assert switch.is_on("hold") is True
    (tmp_path / "stop.yaml").unlink()
    assert switch.is_on("hold") is False
