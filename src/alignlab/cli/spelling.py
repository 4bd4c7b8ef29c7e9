"""How users spell flags: names that TRL, LLaMA-Factory and axolotl use, and what is meant by a name that is unknown."""

import difflib
from collections.abc import Collection

from alignlab.core.find import names

ALIASES = {"model_name_or_path": "model", "dataset_name": "dataset", "dataset_split": "dataset_train_split"}
"""TRL's name -> ours"""

HINTS = {
    "base_model": "that is --model here",
    "datasets": "that is --dataset here",
    "dataset_dir": "give the file itself: --dataset FILE",
    "micro_batch_size": "that is --per_device_train_batch_size here",
    "batch_size": "that is --per_device_train_batch_size here",
    "num_epochs": "that is --num_train_epochs here",
    "epochs": "that is --num_train_epochs here",
    "lr": "that is --learning_rate here",
    "lr_scheduler": "that is --lr_scheduler_type here",
    "sequence_len": "that is --max_length here",
    "cutoff_len": "that is --max_length here",
    "max_seq_length": "that is --max_length here",
    "max_prompt_length": "prompts are never cut; --max_length bounds prompt and completion together",
    "pref_beta": "that is --beta here",
    "rl_beta": "that is --beta here",
    "lora_rank": "that is --lora_r here",
    "lora_target": "that is --lora_target_modules here",
    "finetuning_type": "--use_peft tunes with LoRA, without it all weights are tuned",
    "stage": "the objective is a command: alignlab train dpo",
    "rl": "the objective is a command: alignlab train dpo",
    "template": "the tokenizer's own chat template is used",
    "chat_template": "the tokenizer's own chat template is used",
    "optim": "the optimiser is AdamW; see --adam_beta1, --adam_beta2, --adam_epsilon, --weight_decay",
    "optimizer": "the optimiser is AdamW; see --adam_beta1, --adam_beta2, --adam_epsilon, --weight_decay",
    "eval_strategy": "--eval_steps N evaluates every N steps",
    "save_strategy": "--save_steps N saves every N steps",
    "push_to_hub": "nothing is uploaded; the model is saved in --output_dir",
    "load_in_4bit": "quantised training is not offered; --dtype bfloat16 and --use_peft save memory",
}
"""names that LLaMA-Factory, axolotl and TRL use -> what to do here"""

LOSSES = {
    "sigmoid": "dpo", "sft": "sft", "nll": "sft", "chunked_nll": "sft", "ipo": "ipo", "hinge": "hinge",
    "robust": "robust_dpo", "exo_pair": "exo", "nca_pair": "nca", "sppo_hard": "sppo", "sigmoid_norm": "sigmoid_norm",
    "bco_pair": "bco_pair --form unshifted", "apo_zero": "apo --variant zero", "apo_down": "apo --variant down",
    "kto": "kto", "kto_pair": "kto", "bco": "bco", "simpo": "simpo", "orpo": "orpo",
}  # fmt: skip
"""loss_type, as TRL 1.16 and before have it, -> objective with the flags that make it TRL's; the others are not here"""


def resolve(prog: str, key: str, flags: Collection[str], value: str = "") -> str:
    """Return our name for a flag as a user spelt it, or raise ValueError with the nearest one or a hint."""
    name = key.replace("-", "_")
    name = name if name in flags else ALIASES.get(name, name)
    if name in flags or name == "config":
        return name
    if name in ("loss_type", "pref_loss"):
        raise ValueError(f"{prog}: --{name}: {_loss_hint(value)}")
    if name in HINTS:
        raise ValueError(f"{prog}: no flag --{key}: {HINTS[name]}. All flags: `{prog} -h`")
    near = difflib.get_close_matches(name, [*flags, *ALIASES, "config"], n=1)
    hint = f"; did you mean --{near[0]}?" if near else "."
    raise ValueError(f"{prog}: no flag --{key}{hint} All flags: `{prog} -h`")


def _loss_hint(value: str) -> str:
    if value in LOSSES:
        return f"every loss is a command of its own here; {value!r} is `alignlab train {LOSSES[value]}`"
    return (
        f"every loss is a command of its own here, and {value!r} is none of them; objectives:"
        f" {', '.join(names('objectives'))}"
    )
