import pytest
import torch

from alignlab.cli.context import RunContext
from alignlab.core.types import Row
from alignlab.engine.load import load
from alignlab.procedures import _tuning as tuning
from alignlab.procedures.dialectical import Config


@pytest.mark.parametrize("batch", [4, 7, 16, 32, 64])
def test_a_step_takes_the_batch_that_was_asked_for(batch):
    cfg = tuning.settings(seed=3, steps=50, batch=batch, learning_rate=1e-3, longest=128)
    assert cfg.per_device_train_batch_size * cfg.gradient_accumulation_steps == batch
    assert (cfg.max_steps, cfg.seed, cfg.learning_rate, cfg.max_length) == (50, 3, 1e-3, 128)
    assert cfg.resume_from_checkpoint is True


def test_dropout_is_off_unless_it_is_asked_for():
    given = {"seed": 0, "steps": 1, "batch": 1, "learning_rate": 1e-3, "longest": None}
    assert tuning.settings(**given).disable_dropout is True
    assert tuning.settings(**given, dropout=0.1).disable_dropout is False


def test_a_copy_has_an_adapter_where_one_is_asked_for():
    plain, adapted = (tuning.copy("tiny:", Config(use_peft=use, lora_r=2), 0) for use in (False, True))
    assert all(weight.requires_grad for weight in plain.module.parameters())
    tuned = [name for name, weight in adapted.module.named_parameters() if weight.requires_grad]
    assert tuned
    assert all(".lora_" in name for name in tuned)
    layer = next(m for m in adapted.module.modules() if hasattr(m, "get_delta_weight"))
    assert (layer.r["default"], layer.scaling["default"]) == (2, 2.0)


def test_epsilon_is_in_units_of_a_gradient_of_norm_one():
    whole, adapted = (tuning.copy("tiny:", Config(use_peft=use, lora_r=2), 0) for use in (False, True))
    for model in (whole, adapted):
        weights = [weight for weight in model.module.parameters() if weight.requires_grad]
        gradient = torch.ones(sum(weight.numel() for weight in weights))
        gradient /= gradient.norm()
        assert tuning.epsilon(model, 1.5) == pytest.approx(1.5 * gradient.square().mean().sqrt().item(), rel=1e-4)
    assert tuning.epsilon(whole, 1.5) < tuning.epsilon(adapted, 1.5)
    assert tuning.epsilon(whole, 0.0) == 1e-8
    given = {"seed": 0, "steps": 1, "batch": 1, "learning_rate": 1e-3, "longest": None}
    assert tuning.settings(**given).adam_epsilon == 1e-8
    assert tuning.settings(**given, adam_epsilon=0.25).adam_epsilon == 0.25


def test_rows_without_room_are_left_out_and_counted(tmp_path, capsys):
    model = load("tiny:")
    rows = [Row(prompt="What?", completion="red"), Row(prompt="What? " * 2000, completion="red")]
    assert len(tuning.encoded(RunContext(folder=tmp_path), rows, model)) == 1
    assert "2 rows in -> 1 rows out" in "".join(capsys.readouterr())
