"""Defaults of the training loop that a method brings along: TRL's where TRL has the method."""

import pytest

from alignlab.cli import flags, outline, runs
from alignlab.cli.main import main
from alignlab.core.find import find, names

TRL = {
    # trl 1.16: SFTConfig 2e-5; DPO, KTO, CPO and ORPO 1e-6; RewardConfig 1e-4
    "sft": 2e-5, "dpo": 1e-6, "ipo": 1e-6, "robust_dpo": 1e-6, "kto": 1e-6, "simpo": 1e-6, "orpo": 1e-6,
}  # fmt: skip


def rate(family, name, *argv):
    module = find(family, name)
    groups = runs.groups_of("train", flags.Group("Method", module.Config), module.CARD.training)
    return flags.parse(name, groups, argv)["learning_rate"]


@pytest.mark.parametrize("name", TRL)
def test_learning_rates_are_trls(name):
    assert rate("objectives", name) == TRL[name]
    assert rate("objectives", name, "--learning_rate", "3e-4") == 3e-4, "a flag wins"


@pytest.mark.parametrize("name", ["bradley_terry", "order_classifier"])
def test_reward_models_learn_faster(name):
    assert rate("rewards", name) == 1e-4


@pytest.mark.parametrize(("family", "name"), [(f, n) for f in ("objectives", "rewards") for n in names(f)])
def test_the_help_says_what_the_card_says(family, name):
    assert outline.training(names(family)[name]) == find(family, name).CARD.training
    rate(family, name)  # every name on the card is a flag of the loop


def test_help_shows_the_default(capsys):
    assert main(["train", "dpo", "-h"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "peak learning rate of AdamW" in text
    assert "default 1e-06]" in text.split("peak learning rate", 1)[1][:220]


def test_a_setting_the_loop_does_not_have_is_an_error():
    from alignlab.train.config import TrainConfig

    with pytest.raises(KeyError, match="learning_rat"):
        flags.with_defaults(flags.Group("Training", TrainConfig), {"learning_rat": 1.0})
