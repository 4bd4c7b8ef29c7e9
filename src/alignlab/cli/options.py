"""The flags that every command shares; each field is a flag, each docstring its help."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Run:
    """What to work on, where to write."""

    model: str = "tiny:"
    """model to work on: hub id, local folder, `tiny:` or `tiny:+ADDON` (also --model_name_or_path)"""
    dataset: str | None = None
    """rows: a JSONL, JSONL.gz or Parquet file, a hub id, or `world:NAME` (also --dataset_name)"""
    output_dir: str | None = None
    """folder for results; default runs/METHOD-SEED"""
    seed: int = 0
    """seed of everything random"""
    limit: int | None = None
    """use at most this many items, for a quick look"""
    dry_run: bool = False
    """print the resolved settings and stop before any work"""


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """Who answers: an endpoint is `world:ROLE`, `tiny:`, `hf:MODEL`, `replay:FILE` or PROVIDER/MODEL."""

    teacher: str | None = None
    """endpoint that writes training data, e.g. openai/gpt-5"""
    judge: str | None = None
    """endpoint that scores answers"""
    participant: str | None = None
    """endpoint that plays the user or the other side"""
    endpoints: tuple[str, ...] = ()
    """other roles, as ROLE=ENDPOINT"""
    answer_cache: str | None = None
    """folder that keeps what endpoints answered; runs that share one never pay twice for the same question, such as a
    judge's verdict on two answers. Default: answers/ in --output_dir"""


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How the model is loaded."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """number format of the weights; auto takes what the checkpoint says"""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes an accelerator where there is one"""
    model_revision: str | None = None
    """branch, tag or commit of a hub model"""
    adapter: str | None = None
    """folder or hub id of a LoRA adapter to put on the model"""
    head_weights: tuple[float, ...] = ()
    """fold the output heads of a model that was trained with several into one: a weight >= 0 each, adding up to 1"""
    attn_implementation: Literal["eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3"] | None = (
        None
    )
    """how attention is computed: flex_attention reads a row of shared prompts in one kernel (CUDA; not timed yet), the
    flash kernels read prompts once per completion; default: what transformers takes, mostly sdpa"""
    trust_remote_code: bool = False
    """run Python code that a hub model brings along; off unless you have read that code"""


@dataclass(frozen=True, kw_only=True)
class Data:
    """How rows are read."""

    columns: tuple[str, ...] = ()
    """our column = your column, e.g. prompt=instruction completion=output"""
    dataset_config: str | None = None
    """config of the hub data set --dataset, like `org/name:CONFIG`"""
    dataset_train_split: str | None = None
    """split of a hub data set, default train; of a file, only rows whose column `split` says so"""


@dataclass(frozen=True, kw_only=True)
class Peft:
    """LoRA: tune a small adapter instead of all weights."""

    use_peft: bool = False
    """put a fresh LoRA adapter on the model and tune only that"""
    lora_r: int = 16
    """rank, >= 1"""
    lora_alpha: int = 32
    """scale; the update is multiplied by alpha / rank"""
    lora_dropout: float = 0.0
    """dropout before the adapter, in [0, 1)"""
    lora_target_modules: str | tuple[str, ...] = "all-linear"
    """names of the modules to adapt, or all-linear"""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Rows held out of training."""

    eval_dataset: str | None = None
    """rows to evaluate on during training, same forms as --dataset, which may be --dataset itself"""
    dataset_test_split: str | None = None
    """split of --eval_dataset on the hub, default test; of a file, only rows whose column `split` says so"""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How completions are drawn."""

    n: int = 1
    """completions per prompt, >= 1"""
    temperature: float = 1.0
    """0 takes the likeliest token each time"""
    max_tokens: int = 256
    """longest completion, in tokens"""


@dataclass(frozen=True, kw_only=True)
class Answering:
    """How an evaluated model answers."""

    temperature: float = 0.0
    """0 takes the likeliest token each time"""
    max_tokens: int = 256
    """longest answer, in tokens"""
    option_score: Literal["sum", "open", "token", "character", "byte", "pmi"] = "sum"
    """score of an option: summed log-probability with the end of the answer, without it (open), that per token,
    character or byte, or less its own probability after a bare `Answer:` (pmi)"""
    inspect_log: bool = True
    """also write logs/*.eval, for `inspect view`, where Inspect AI is installed"""
    target: str | None = None
    """evaluate this endpoint instead of --model, e.g. openai/gpt-5"""
    steer: tuple[str, ...] = ()
    """steering methods to put on --model, each as METHOD or METHOD?option=value"""
    before: str | None = None
    """folder of an earlier run of this eval on the same items; changes to it are among the metrics"""


@dataclass(frozen=True, kw_only=True)
class Steering:
    """What is steered."""

    prompt: str | None = None
    """one prompt, instead of --dataset"""
    fit_dataset: str | None = None
    """rows to fit the method on, where it fits something"""
