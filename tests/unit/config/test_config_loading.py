"""Defaults, YAML and key=value words become one checked object; whatever is wrong is named."""

import pytest
from pydantic import Field

from xray_vqa.config.loading import find_config, load_config, load_policy, require
from xray_vqa.core.records import Strict
from xray_vqa.errors import ConfigError


class Inner(Strict):
    rank: int = Field(default=64, ge=1)
    names: list[str] = []


class Settings(Strict):
    learning_rate: float = 2e-4
    title: str = ""
    lora: Inner = Inner()


def write(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


def test_defaults_then_file_then_words(tmp_path):
    path = write(tmp_path, "learning_rate: 0.5\ntitle: file\nlora: {rank: 8}\n")
    assert load_config(Settings) == Settings()
    assert load_config(Settings, path).lora.rank == 8
    config = load_config(Settings, path, ["learning_rate=1e-4", "lora.names=[a, b]"])
    assert config == Settings(learning_rate=1e-4, title="file", lora=Inner(rank=8, names=["a", "b"]))


def test_an_empty_file_is_all_defaults(tmp_path):
    assert load_config(Settings, write(tmp_path, "# nothing yet\n")) == Settings()


def test_a_word_makes_the_section_it_needs():
    assert load_config(Settings, overrides=["lora.rank=2"]).lora.rank == 2


def test_a_value_may_hold_an_equals_sign_and_may_be_empty():
    assert load_config(Settings, overrides=["title=a=b"]).title == "a=b"
    with pytest.raises(ConfigError, match="title"):
        load_config(Settings, overrides=["title="])


def test_an_unknown_key_names_the_nearest_known_one(tmp_path):
    path = write(tmp_path, "learnign_rate: 1\n")
    with pytest.raises(ConfigError) as raised:
        load_config(Settings, path)
    assert str(raised.value) == f"{path}: unknown key 'learnign_rate'; did you mean 'learning_rate'?"


def test_an_unknown_key_in_a_section_names_the_nearest_one_there():
    with pytest.raises(ConfigError, match=r"unknown key 'lora\.rnak'; did you mean 'rank'\?"):
        load_config(Settings, overrides=["lora.rnak=8"])


def test_an_unknown_key_like_no_other_lists_the_known_ones():
    with pytest.raises(ConfigError, match="known here: learning_rate, lora, title"):
        load_config(Settings, overrides=["zzz=1"])


def test_a_value_that_does_not_fit_is_named_with_its_place(tmp_path):
    with pytest.raises(ConfigError, match=r"lora\.rank: .*greater than or equal to 1"):
        load_config(Settings, write(tmp_path, "lora: {rank: 0}\n"))


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words\n", "3\n"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match="mapping of keys to values"):
        load_config(Settings, write(tmp_path, text))


def test_a_file_that_is_no_yaml_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="not YAML"):
        load_config(Settings, write(tmp_path, "a: [1\n"))


def test_a_file_of_bytes_that_are_no_text_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not YAML"):
        load_config(Settings, path)


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "none.yaml"
    with pytest.raises(ConfigError, match="no such configuration file") as raised:
        load_config(Settings, path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("word", ["learning_rate", "=3", ""])
def test_a_word_without_key_and_value_is_refused(word):
    with pytest.raises(ConfigError, match="is no key=value"):
        load_config(Settings, overrides=[word])


def test_a_value_has_no_keys_inside(tmp_path):
    path = write(tmp_path, "title: x\n")
    with pytest.raises(ConfigError, match="title is a value and has no keys inside"):
        load_config(Settings, path, ["title.deep=1"])


def test_a_word_whose_value_is_no_yaml_is_refused():
    with pytest.raises(ConfigError, match="the value is not YAML"):
        load_config(Settings, overrides=["lora.names=[a"])


def test_a_configuration_of_the_working_directory_comes_first(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "policy.yaml").write_text("mine: 1\n")
    monkeypatch.chdir(tmp_path)
    assert find_config("policy.yaml").read_text() == "mine: 1\n"


def test_the_shipped_policy_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_policy().name == "general"
    with pytest.raises(ConfigError, match=r"no configuration absent\.yaml"):
        find_config("absent.yaml")


def test_a_missing_package_is_named_with_its_extra():
    require("json", extra="none")
    with pytest.raises(ConfigError, match=r"no_such_package_here.*\.\[generate\]"):
        require("no_such_package_here", extra="generate")
