import pytest

from xray_vqa.config.serve import load_settings
from xray_vqa.errors import ConfigError


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    import os

    for name in list(os.environ):
        if name.startswith("XRAY_VQA_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_defaults_are_the_guides_port_on_this_machine_alone():
    settings = load_settings()
    assert (settings.host, settings.port, settings.engine) == ("127.0.0.1", 8080, "transformers")
    assert settings.database_url == "sqlite:///outputs/audit.sqlite3"


def test_the_model_is_the_trained_adapter_where_there_is_one_else_nano(tmp_path):
    assert load_settings().model == "nano"
    (tmp_path / "outputs/qwen25vl_stcray_lora").mkdir(parents=True)
    assert load_settings().model == "outputs/qwen25vl_stcray_lora"


def test_the_environment_sets_and_an_option_wins(monkeypatch):
    monkeypatch.setenv("XRAY_VQA_PORT", "9000")
    monkeypatch.setenv("XRAY_VQA_MODEL", "nano")
    monkeypatch.setenv("XRAY_VQA_POLICY", "")
    assert load_settings().port == 9000
    assert load_settings(port="9001", model=None).port == 9001
    assert load_settings().policy is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("XRAY_VQA_PORT", "tcp://10.0.0.1:80", "XRAY_VQA_PORT: .*integer"),
        ("XRAY_VQA_TIMEOUT_S", "0", "XRAY_VQA_TIMEOUT_S: .*greater than 0"),
        ("XRAY_VQA_ENGINE", "tensorrt", "XRAY_VQA_ENGINE: .*transformers"),
        ("XRAY_VQA_TIMOUT_S", "5", "did you mean XRAY_VQA_TIMEOUT_S"),
        ("XRAY_VQA_QUEUESIZE", "5", "did you mean XRAY_VQA_QUEUE_SIZE"),
        ("XRAY_VQA_PROFILE", "prod", "XRAY_VQA_PROFILE: .*production"),
        ("XRAY_VQA_OIDC_ISSUER", "https://id.example", "oidc_issuer needs oidc_audience"),
        ("XRAY_VQA_OIDC_AUDIENCE", "x", "need oidc_issuer"),
        ("XRAY_VQA_OIDC_ALGORITHMS", '["HS256"]', "XRAY_VQA_OIDC_ALGORITHMS: .*RS256"),
        ("XRAY_VQA_OIDC_ALGORITHMS", '["none"]', "XRAY_VQA_OIDC_ALGORITHMS: .*RS256"),
        ("XRAY_VQA_OIDC_ROLES", "officer", "oidc_roles.*JSON"),
        ("XRAY_VQA_TRUSTED_PROXIES", "*", "would let anyone say where they come from"),
    ],
)
def test_a_value_or_a_name_that_does_not_fit_stops_the_start(monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        load_settings()


def test_a_wrong_option_is_named_as_the_option_it_is():
    with pytest.raises(ConfigError, match="--queue-size: "):
        load_settings(queue_size="many")


def test_variables_of_others_are_left_alone(monkeypatch):
    for name in ("XRAY_VQA_LOG_LEVEL", "XRAY_VQA_REAL_DIR", "XRAY_VQA_API_SERVICE_PORT", "XRAY_VQA_API_SERVICE_HOST"):
        monkeypatch.setenv(name, "x")
    assert load_settings().port == 8080


def test_the_production_profile_does_not_serve_a_script():
    with pytest.raises(ConfigError, match="does not serve readings from a script"):
        load_settings(profile="production", engine="scripted")
