"""Build a small byte-level BPE tokenizer whose given words are one token each, with a chat template."""

from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"
ROLES = {role: f"<|{role}|>" for role in ("system", "user", "assistant")}
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% set open = loop.last and continue_final_message is defined and continue_final_message %}"
    "{% if not open %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
_PIECES = r"\s?[A-Za-z]+|\s?[0-9]+|\s?[^\sA-Za-z0-9]+|\s+"


def byte_level_bpe(
    words: Sequence[str], heads: Sequence[str] = (), named: Sequence[str] = (), joined: Sequence[str] = (),
    context: int = 512,
) -> PreTrainedTokenizerFast:  # fmt: skip
    """Return a tokenizer that knows every byte, and every one of `words` after a space as one token.

    `heads` are words that also begin lines, `named` words that also follow an opening bracket,
    `joined` words that also follow a hyphen.
    Raises ValueError when a word did not become one token.
    """
    tokenizer = Tokenizer(models.BPE())
    # A text starts like every other word does, behind a space; the decoder takes it off again.
    tokenizer.normalizer = normalizers.Prepend(" ")
    split = pre_tokenizers.Split(Regex(_PIECES), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    special = [PAD, BEGIN, END, *ROLES.values()]
    trainer = trainers.BpeTrainer(
        vocab_size=65536,
        min_frequency=1,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = [
        *words,
        *(f"x\n{head}" for head in heads),
        *(f"x ({name}" for name in named),
        *(f"x-{name}" for name in joined),
    ]
    marks = ["x):", "x (", "x =", *(f"x\n{number}" for number in range(1, 31))]
    tokenizer.train_from_iterator([*lines, *marks], trainer)
    begin = tokenizer.token_to_id(BEGIN)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, begin)])
    if broken := [w for w in words if len(tokenizer.encode(w, add_special_tokens=False).ids) != 1]:
        raise ValueError(f"{len(broken)} words are more than one token, {broken[0]!r} first; they need letters only")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
        additional_special_tokens=list(ROLES.values()),
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
