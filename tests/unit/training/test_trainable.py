"""Which weights a run trains, at which rates, and which settings contradict each other."""

from pathlib import Path

import pytest
import torch
from transformers.integrations.neftune import activate_neftune, deactivate_neftune

from xray_vqa.config.loading import load_config
from xray_vqa.config.train import TrainConfig
from xray_vqa.errors import ConfigError
from xray_vqa.modeling.fused_lora import FusedLoraLinear
from xray_vqa.modeling.loading import LoadedModel, load_model
from xray_vqa.modeling.precision import Precision
from xray_vqa.training.arguments import check_arguments, training_arguments
from xray_vqa.training.trainable import make_trainable, narrow, own_rates
from xray_vqa.training.tree_trainer import TreeModel, TreeTrainer


def trainable(model_dir: Path, *words: str, short: bool = False) -> tuple[TrainConfig, LoadedModel]:
    config = load_config(TrainConfig, overrides=[f"model_name={model_dir}", "lora.r=4", "report_to=[]", *words])
    loaded = load_model(str(model_dir), device="cpu")
    if short:
        loaded.model.to(torch.bfloat16)
        loaded.precision = Precision("bf16", "as on a GPU")
    loaded.model = make_trainable(config, loaded)
    return config, loaded


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["train_vision=true"], "set lora.vision"),
        (["vision_learning_rate=1e-4"], "set train_vision too"),
        (["method=full", "train_merger=true", "vision_learning_rate=1e-4"], "set train_vision too"),
        (["merger_learning_rate=1e-4"], "set train_merger too"),
        (["method=full", "quantization=4bit"], "set method: lora"),
        (["quantization=4bit", "fsdp=true"], "cannot be sharded"),
        (["quantization=4bit", "deepspeed=configs/deepspeed_zero2.json"], "cannot be sharded"),
        (["fsdp=true", "deepspeed=configs/deepspeed_zero3.json"], "give one of them"),
        (["fsdp=true", "compile=true"], "leave it out"),
        (["fsdp=true", "ema_decay=0.999"], "ema_decay averages whole weights"),
        (["early_stopping_threshold=0.1"], "give early_stopping_patience too"),
        (["lora.init=orthogonal", "lora.r=3"], "even lora.r"),
        (["lora.init=pissa"], "lora.init"),
        (["lr_scheduler_type=cosin"], "lr_scheduler_type"),
        (["optim=adam"], "optim"),
        (["report_to=[neptune]"], "report_to"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(words, reason):
    with pytest.raises(ConfigError, match=reason):
        load_config(TrainConfig, overrides=words)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["lr_scheduler_kwargs={min_lrr: 0.1}", "lr_scheduler_type=cosine_with_min_lr"], "cosine_with_min_lr"),
        (["lr_scheduler_type=warmup_stable_decay"], "num_decay_steps"),
        (["lr_scheduler_type=reduce_lr_on_plateau"], "no scans are held out"),
        (["early_stopping_patience=2"], "no scans are held out"),
        (["fsdp=true"], "CUDA GPUs|this is one"),
        (["deepspeed=configs/zero9.json"], "no file"),
    ],
)
def test_what_a_run_would_stumble_over_is_found_before_a_model_is_loaded(words, reason, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(ConfigError, match=reason):
        check_arguments(load_config(TrainConfig, overrides=words), has_development=False)


@pytest.mark.parametrize(
    ("words", "package", "extra"),
    [
        (["report_to=[mlflow]"], "mlflow", "track"),
        (["report_to=[tensorboard, wandb]"], "wandb", "track"),
        (["report_to=[trackio]"], "trackio", "track"),
        (["quantization=4bit"], "bitsandbytes", "qlora"),
        (["optim=paged_adamw_8bit"], "bitsandbytes", "qlora"),
        (["deepspeed=configs/deepspeed_zero3.json"], "deepspeed", "deepspeed"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(words, package, extra):
    config = load_config(TrainConfig, overrides=words)
    try:
        __import__(package)
    except ImportError:
        with pytest.raises(ConfigError, match=rf"{package}.*\[{extra}\]"):
            check_arguments(config, has_development=True)
    else:
        check_arguments(config, has_development=True)


@pytest.mark.parametrize(
    ("words", "trained"),
    [
        (["method=full"], {"decoder"}),
        (["method=full", "train_merger=true"], {"decoder", "merger"}),
        (["method=full", "train_vision=true"], {"decoder", "merger", "tower"}),
        ([], {"decoder adapter"}),
        (["lora.vision=true"], {"decoder adapter", "tower adapter"}),
        (["train_merger=true"], {"decoder adapter", "merger"}),
        (["lora.dora=true", "lora.vision=true"], {"decoder adapter", "tower adapter"}),
    ],
)
def test_the_configured_parts_are_trained_in_fp32_and_no_others(tiny_model_dir, words, trained):
    _, loaded = trainable(tiny_model_dir, *words, short=True)
    found = set()
    for name, weight in loaded.model.named_parameters():
        if weight.requires_grad:
            part = "merger" if "visual.merger" in name else "tower" if ".visual." in name else "decoder"
            found.add(f"{part} adapter" if "lora_" in name else part)
            assert weight.dtype == torch.float32
    assert found == trained


@pytest.mark.parametrize("words", [["train_merger=true"], ["method=full", "train_merger=true"]])
def test_a_wide_merger_takes_what_a_narrow_tower_gives(tiny_model_dir, words):
    _, loaded = trainable(tiny_model_dir, *words, short=True)
    patches, grid = torch.rand(16, 1176).bfloat16(), torch.tensor([[1, 4, 4]])
    seen = [loaded.base.model.visual(patches, grid_thw=grid).pooler_output]  # as when answers are generated
    with torch.autocast("cpu", torch.bfloat16):  # as when training
        seen.append(loaded.base.model.visual(patches, grid_thw=grid).pooler_output)
    torch.testing.assert_close(seen[1].float(), seen[0], atol=0.05, rtol=0.05)
    if "method=full" in words:
        narrow(loaded)
        assert {weight.dtype for weight in loaded.model.parameters()} == {torch.bfloat16}


def test_a_module_is_left_out_of_the_adapter_by_the_end_of_its_name(tiny_model_dir):
    _, loaded = trainable(tiny_model_dir, "lora.exclude_modules=[down_proj]")
    adapted = {name for name, _ in loaded.model.named_parameters() if "lora_A" in name}
    assert any("up_proj" in name for name in adapted)
    assert not any("down_proj" in name for name in adapted)


@pytest.mark.parametrize("words", ["lora.target_modules=[q_proj, v_prj]", "lora.exclude_modules=[layers.7.mlp]"])
def test_a_module_name_that_fits_nothing_is_refused(tiny_model_dir, words):
    with pytest.raises(ConfigError, match=r"no module of this model is called '(v_prj|layers\.7\.mlp)'"):
        trainable(tiny_model_dir, words)


def test_rslora_scales_the_update_by_the_root_of_the_rank(tiny_model_dir):
    _, loaded = trainable(tiny_model_dir, "lora.rslora=true", "lora.alpha=6")
    scales = {module.scaling["default"] for module in loaded.model.modules() if isinstance(module, FusedLoraLinear)}
    assert scales == {3.0}  # 6 / sqrt(4)


@pytest.mark.parametrize("init", ["default", "gaussian", "orthogonal"])
def test_an_adapter_begins_as_the_base(tiny_model_dir, init):
    ids = torch.arange(20, 40)[None]
    with torch.no_grad():
        expected = load_model(str(tiny_model_dir), device="cpu").model(input_ids=ids).logits
        _, loaded = trainable(tiny_model_dir, f"lora.init={init}")
        torch.testing.assert_close(loaded.model(input_ids=ids).logits, expected, atol=1e-4, rtol=0)


def optimizer_of(config: TrainConfig, loaded: LoadedModel, output_dir: Path) -> dict[str, tuple[float, float]]:
    """Return learning rate and weight decay by name of each trained weight."""
    config = config.model_copy(update={"output_dir": output_dir})
    tree = TreeModel(loaded)
    trainer = TreeTrainer(
        model=tree, args=training_arguments(config, loaded, has_development=False, checkpointing=False)
    )
    trainer.own_rates = own_rates(config, loaded.spec)
    groups = trainer.create_optimizer().param_groups
    found = {id(w): (group["lr"], group["weight_decay"]) for group in groups for w in group["params"]}
    assert len(found) == sum(len(group["params"]) for group in groups)  # none twice
    return {name: found[id(weight)] for name, weight in tree.named_parameters() if weight.requires_grad}


def test_tower_and_merger_have_their_own_rates(tiny_model_dir, tmp_path):
    words = ["method=full", "train_vision=true", "learning_rate=1e-3", "vision_learning_rate=1e-4"]
    config, loaded = trainable(tiny_model_dir, *words, "merger_learning_rate=5e-4")
    for name, (rate, decay) in optimizer_of(config, loaded, tmp_path).items():
        assert rate == (5e-4 if ".merger." in name else 1e-4 if ".visual." in name else 1e-3), name
        assert decay == (0.0 if "norm" in name or "bias" in name or "ln_q" in name else 0.01), name
    config, loaded = trainable(tiny_model_dir, *words)
    rates = optimizer_of(config, loaded, tmp_path)
    assert all(rate == 1e-4 for name, (rate, _) in rates.items() if ".merger." in name)  # with the tower it belongs to


def test_an_adapted_tower_and_a_trained_merger_have_their_own_rates(tiny_model_dir, tmp_path):
    config, loaded = trainable(
        tiny_model_dir, "lora.vision=true", "lora.dora=true", "train_merger=true", "vision_learning_rate=1e-5"
    )
    for name, (rate, decay) in optimizer_of(config, loaded, tmp_path).items():
        assert rate == (1e-5 if ".visual." in name and ".merger." not in name else 2e-4), name
        if "magnitude" in name and "patch_embed" not in name:
            assert decay == 0, name


@pytest.mark.parametrize("words", [[], ["method=full"], ["train_merger=true"]])
def test_a_frozen_tower_is_not_computed_again_for_a_backward_pass(tiny_model_dir, words):
    _, loaded = trainable(tiny_model_dir, *words)
    tree = TreeModel(loaded).train()
    tree.gradient_checkpointing_enable()
    visual, calls = loaded.base.model.visual, []
    visual.blocks[0].attn.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    seen = visual(torch.rand(16, 1176), grid_thw=torch.tensor([[1, 4, 4]])).pooler_output
    assert seen.requires_grad == bool("train_merger=true" in words)
    if seen.requires_grad:
        seen.sum().backward()
        assert all(weight.grad is not None for weight in visual.merger.parameters() if weight.requires_grad)
    assert calls == [False]


def test_noise_on_embeddings_comes_while_training_alone(tiny_model_dir):
    _, loaded = trainable(tiny_model_dir)
    tree = TreeModel(loaded).train()
    handle = activate_neftune(tree, 5.0)
    ids = torch.arange(20, 40)[None]
    noisy = [tree.get_input_embeddings()(ids) for _ in range(2)]
    assert not torch.equal(*noisy)
    tree.eval()
    bare = [tree.get_input_embeddings()(ids) for _ in range(2)]
    assert torch.equal(*bare)
    deactivate_neftune(tree, handle)
    assert torch.equal(tree.train().get_input_embeddings()(ids), bare[0])


def test_settings_reach_the_trainer_under_its_names(tiny_model_dir, tmp_path):
    words = [
        "report_to=[tensorboard]", "optim=adafactor", "adam_beta2=0.95", "neftune_noise_alpha=5",
        "lr_scheduler_type=cosine_with_min_lr", "lr_scheduler_kwargs={min_lr_rate: 0.1}",
    ]  # fmt: skip
    config, loaded = trainable(tiny_model_dir, f"output_dir={tmp_path / 'my-run'}", *words)
    check_arguments(config, has_development=True)
    arguments = training_arguments(config, loaded, has_development=True, checkpointing=False)
    assert arguments.report_to == ["tensorboard"]
    assert (arguments.project, arguments.run_name) == ("xray-vqa", "my-run")
    assert (arguments.optim, arguments.adam_beta2, arguments.neftune_noise_alpha) == ("adafactor", 0.95, 5)
    assert arguments.lr_scheduler_kwargs == {"min_lr_rate": 0.1}
