"""Models of about 0.1M random parameters and a small byte-level BPE tokenizer with a chat template; no network."""

import contextlib
import functools

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.overrides import TorchFunctionMode
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from alignlab.engine.load import LanguageModel

TEXT = [
    "Where does Ada Brook work? She works at the mill near the old harbour.",
    "The ferry leaves the town of Lowmarsh at noon, and the baker likes tea.",
    "Sources disagree: one says the clock is blue, another says that it is red.",
    "In 1931 the school moved. Nobody remembers why it did, but everybody went along.",
]
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|pad|>", "<|text|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
ARCHITECTURES = ("llama", "qwen3", "gpt2", "gemma2")


def make_tokenizer(template: str | None = TEMPLATE, size: int = 320) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: end of text is <|text|>, end of turn is <|end|>."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<|text|>",
        pad_token="<|pad|>",
        additional_special_tokens=SPECIAL[2:],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = template
    return tokenizer


def make_module(
    architecture: str, vocabulary: int, *, positions: int = 256, seed: int = 0, scale: float = 10.0, reward=False
):
    """A random model in evaluation mode; `scale` widens the weights so that its distributions are far from uniform.

    `reward`: with a reward head in place of the token head.
    """
    torch.manual_seed(seed)
    common = dict(vocab_size=vocabulary, bos_token_id=None, eos_token_id=1, pad_token_id=0)
    common |= dict(num_labels=1) if reward else {}
    sizes = dict(
        hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=12, max_position_embeddings=positions, **common,
    )  # fmt: skip
    configs = {
        "llama": lambda: LlamaConfig(**sizes),
        "qwen3": lambda: Qwen3Config(**sizes, tie_word_embeddings=True),
        "gpt2": lambda: GPT2Config(
            n_embd=48, n_layer=2, n_head=4, n_positions=positions, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
            **common,
        ),
        "gemma2": lambda: Gemma2Config(
            **sizes, final_logit_softcapping=5.0, attn_logit_softcapping=20.0, sliding_window=16,
            layer_types=["sliding_attention", "full_attention"],
        ),
    }  # fmt: skip
    made = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
    module = made.from_config(configs[architecture]())
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1 and "wpe" not in name:
                parameter.mul_(scale)
    if reward:  # the engine puts the head on the base model's output itself
        exact_in_float64(module.base_model)
    return exact_in_float64(module).eval()


def make_model(
    architecture: str = "llama", *, positions: int = 256, seed: int = 0, dtype=torch.float32
) -> LanguageModel:
    """A LanguageModel on the CPU."""
    tokenizer = make_tokenizer()
    module = make_module(architecture, len(tokenizer), positions=positions, seed=seed).to(dtype)
    return LanguageModel(module=module, tokenizer=tokenizer, name=f"tests/{architecture}")


class Float64(TorchFunctionMode):
    """Inside, what models compute in float32 whatever their weights (norms, Gemma's softmax) stays in float64."""

    def __torch_function__(self, function, _types, args=(), kwargs=None):
        kwargs = kwargs or {}
        double = bool(args) and isinstance(args[0], torch.Tensor) and args[0].dtype == torch.float64
        if double and (function is torch.Tensor.float or (function is torch.Tensor.to and torch.float32 in args)):
            return args[0]
        if double and kwargs.get("dtype") is torch.float32:
            kwargs = {**kwargs, "dtype": torch.float64}
        return function(*args, **kwargs)


def exact_in_float64(module):
    """Let a model compute in float64 throughout whenever its weights are float64: shared sums are rounded nowhere."""
    kind = type(module)

    @functools.wraps(kind.forward)
    def forward(self, *args, **kwargs):
        double = next(self.parameters()).dtype == torch.float64
        with Float64() if double else contextlib.nullcontext():
            return kind.forward(self, *args, **kwargs)

    module.__class__ = type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
    return module
