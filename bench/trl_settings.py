"""Both sides of `trl_checks`: model, rows, what TRL calls each method, what is made alike for one formula."""

import random
from dataclasses import dataclass, field
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

WORDS, ROWS, BETA = 200, 12, 0.3


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One method on both sides."""

    called: str
    """what TRL calls it"""
    trainer: str = "DPO"
    """its trainer and config, less these words"""
    module: str = "trl"
    """where they are"""
    kind: str = "pairs"
    """of rows: pairs, thumbs or plain"""
    theirs: dict[str, Any] = field(default_factory=dict)
    ours: dict[str, Any] = field(default_factory=dict)
    default: dict[str, Any] = field(default_factory=dict)
    """what `ours` would be without making it alike, where that is another setting"""
    scale: float = 1.0
    """their loss is ours times this"""
    note: str = ""
    """what was made alike for column `formula`, with {apart} for the difference without that; or what is not alike"""


def _dpo(called: str, *, ours: dict[str, Any] | None = None, **given: Any) -> Setting:
    own = {name: given.pop(name) for name in ("note", "default") if name in given}
    return Setting(called=f"DPO {called}", theirs={"beta": BETA, **given}, ours={"beta": BETA, **(ours or {})}, **own)


EXPERIMENTAL = "trl.experimental."
SETTINGS: dict[str, Setting] = {
    "sft": Setting(called="SFT", trainer="SFT", kind="plain"),
    "dpo": _dpo("sigmoid"),
    "cdpo": _dpo(
        "sigmoid, label_smoothing 0.1", label_smoothing=0.1, ours={"label_smoothing": 0.1},
        note="TRL 1.16 passes label_smoothing over with sigmoid: this is DPO without it",
    ),
    "robust_dpo": _dpo("robust", loss_type=["robust"], label_smoothing=0.1, ours={"label_smoothing": 0.1}),
    "hinge": _dpo("hinge", loss_type=["hinge"]),
    "ipo": _dpo("ipo", loss_type=["ipo"]),
    "exo": _dpo("exo_pair", loss_type=["exo_pair"], label_smoothing=1e-3),
    "nca": _dpo("nca_pair", loss_type=["nca_pair"]),
    "bco_pair": _dpo(
        "bco_pair", loss_type=["bco_pair"], ours={"form": "unshifted"}, default={"form": "midpoint"},
        note="against our form `unshifted`; the paper's classifier has a shift, our default, which TRL leaves out"
        " ({apart} apart)",
    ),
    "sppo": _dpo("sppo_hard", loss_type=["sppo_hard"]),
    "apo": _dpo("apo_zero", loss_type=["apo_zero"]),
    "sigmoid_norm": _dpo("sigmoid_norm", loss_type=["sigmoid_norm"]),
    "f_dpo": _dpo("sigmoid, js_divergence", f_divergence_type="js_divergence"),
    "rpo": _dpo(
        "sigmoid + sft", loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.5],
        ours={"eta": 0.5, "form": "token_mean"}, note="against our form `token_mean`",
    ),
    "kto": Setting(
        called="KTO", trainer="KTO", kind="thumbs", theirs={"beta": BETA}, ours={"beta": BETA},
        note="formula with TRL's partners for z0, each row with the completion of the row before it; ours are chosen"
        " by content over the whole step, whatever the order and the cut, a deviation on our card ({apart} apart)",
    ),
    "orpo": Setting(
        called="ORPO (experimental)", trainer="ORPO", module=EXPERIMENTAL + "orpo", theirs={"beta": BETA},
        ours={"beta": BETA, "form": "per_token"},
        note="formula with the prompt's tokens in the likelihood term and all its tokens weighing the same, as in TRL;"
        " ours leaves the prompt out, as the paper's equation does ({apart} apart)",
    ),
    "simpo": Setting(
        called="CPO simpo (experimental)", trainer="CPO", module=EXPERIMENTAL + "cpo",
        theirs={"beta": 2.0, "loss_type": "simpo", "simpo_gamma": 1.0, "cpo_alpha": 0.0},
    ),
    "slic": Setting(
        called="CPO hinge (experimental)", trainer="CPO", module=EXPERIMENTAL + "cpo",
        theirs={"beta": BETA, "loss_type": "hinge", "cpo_alpha": 1.0},
        ours={"delta": 1 / BETA, "nll_weight": 1 / BETA, "form": "per_token"}, scale=BETA,
        note="CPO's hinge is our form `per_token` at delta 1/beta and nll_weight 1/beta, times beta",
    ),
    "bradley_terry": Setting(called="RewardTrainer", trainer="Reward"),
}  # fmt: skip
ABSENT = {
    "adpa": "no such trainer", "bco": "removed in September 2026", "cut": "no such trainer", "dckd": "no such trainer",
    "dove": "no such trainer", "mah_dpo": "no such trainer", "order_classifier": "no such trainer",
    "outcome": "no such trainer", "plackett_luce": "no lists of more than two", "poft": "no such trainer",
    "process": "PRMTrainer was removed", "ranked": "no lists of more than two", "spin": "no such trainer",
    "weak_to_strong": "no such trainer",
}  # fmt: skip


def tokenizer(padding: str = "<pad>") -> PreTrainedTokenizerFast:
    """Return a tokenizer whose words are its tokens, so that TRL and alignlab read the same ids."""
    vocabulary = {word: k for k, word in enumerate(("<pad>", "<end>", "<other>", *(f"w{k}" for k in range(WORDS))))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<other>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token=padding, eos_token="<end>", unk_token="<other>")


def model(seed: int = 0, *, reward: bool = False) -> Any:
    """Return a Llama whose distributions are not far from uniform, or one with a reward head."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=WORDS + 3, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, bos_token_id=None, eos_token_id=1,
        **({"num_labels": 1} if reward else {}),
    )  # fmt: skip
    module = (AutoModelForSequenceClassification if reward else AutoModelForCausalLM).from_config(config)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2.0)
    return module


def rows(kind: str) -> list[dict[str, Any]]:
    """Return rows of random words: `pairs`, `thumbs` or `plain`."""
    draw = random.Random(0)

    def text(least: int, most: int) -> str:
        return " ".join(f"w{draw.randrange(WORDS)}" for _ in range(draw.randint(least, most)))

    found = []
    for k in range(ROWS):
        row: dict[str, Any] = {"prompt": text(2, 9)}
        if kind == "pairs":
            row |= {"chosen": " " + text(1, 9), "rejected": " " + text(1, 9)}
        else:
            row |= {"completion": " " + text(1, 9)} | ({"label": k % 3 > 0} if kind == "thumbs" else {})
        found.append(row)
    return found
