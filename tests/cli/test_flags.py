import dataclasses
from dataclasses import dataclass
from typing import Literal

import pytest

from alignlab.cli import flags, options, spelling


@dataclass(frozen=True, kw_only=True)
class Config:
    """A method's settings."""

    beta: float = 0.1
    """strength, > 0; 5 % is common"""
    form: Literal["pair", "token"] = "pair"
    """which mean"""
    ratios: tuple[float, ...] = (0.0, 0.2)
    """shares"""
    names: tuple[str, ...] = ()
    """words"""
    steps: int | None = None
    """how many"""
    resume: bool | str = False
    """whether, or where from"""
    seed: int = 7
    """shared with the run"""


GROUPS = [flags.Group("Method", Config), flags.Group("Run", options.Run), flags.Group("LoRA", options.Peft)]
PROG = "alignlab train dpo"


def parse(*argv):
    return flags.parse(PROG, GROUPS, argv)


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        (["--beta", "1e-4"], "beta", 1e-4),
        (["--beta=-2"], "beta", -2.0),
        (["--steps", "-3"], "steps", -3),
        (["--steps", "null"], "steps", None),
        (["--form", "token"], "form", "token"),
        (["--ratios", "0", ".2", "1"], "ratios", (0.0, 0.2, 1.0)),
        (["--ratios", "0,.2,1"], "ratios", (0.0, 0.2, 1.0)),
        (["--ratios=[0, 1]"], "ratios", (0.0, 1.0)),
        (["--ratios", ".4"], "ratios", (0.4,)),
        (["--names", "1", "--names", "a: b"], "names", ("1", "a: b")),
        (["--names", "judge=openai/x,y"], "names", ("judge=openai/x,y",)),
        (["--use-peft"], "use_peft", True),
        (["--use_peft", "no"], "use_peft", False),
        (["--use_peft", "--no-use-peft"], "use_peft", False),
        (["--resume"], "resume", True),
        (["--resume", "--seed", "1"], "resume", True),
        (["--resume", "True"], "resume", True),
        (["--resume=1"], "resume", True),
        (["--resume", "False"], "resume", False),
        (["--resume", "null"], "resume", False),
        (["--resume", "None"], "resume", False),
        (["--no-resume"], "resume", False),
        (["--resume", "runs/x"], "resume", "runs/x"),
        (["--resume", "./1"], "resume", "./1"),
        (["--lora-target-modules", "q_proj,v_proj"], "lora_target_modules", ("q_proj", "v_proj")),
        (["--lora_target_modules", "q_proj", "v_proj"], "lora_target_modules", ("q_proj", "v_proj")),
        (["--lora_target_modules", "all-linear"], "lora_target_modules", "all-linear"),
        (["--model_name_or_path", "123"], "model", "123"),
        (["--dataset-name", "yes: no"], "dataset", "yes: no"),
        ([], "seed", 7),
        (["--beta", "1", "--beta", "2"], "beta", 2.0),
    ],
)
def test_spellings(argv, name, value):
    assert parse(*argv)[name] == value


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--bta", "1"], r"alignlab train dpo: no flag --bta; did you mean --beta\?.*alignlab train dpo -h"),
        (["--beta", "abc"], "--beta: expected a number, got 'abc'"),
        (["--steps", "1.5"], "--steps: expected a whole number or null, got '1.5'"),
        (["--form", "c"], "--form: expected one of pair, token, got 'c'"),
        (["--ratios", "a"], "--ratios: expected a list, each a number"),
        (["--beta"], "--beta needs a value: a number"),
        (["--beta", "1", "2"], "--beta takes one value, got 2"),
        (["--dry_run", "null"], "--dry_run: expected true or false, got 'null'"),
        (["--dry_run", "maybe"], "--dry_run: expected true or false, got 'maybe'"),
        (["--no_dry_run", "1"], "takes no value"),
        (["beta"], "unexpected 'beta'"),
        (["--base_model", "x"], "that is --model here"),
        (["--micro-batch-size", "4"], "per_device_train_batch_size"),
        (["--loss_type", "sigmoid"], "'sigmoid' is `alignlab train dpo`"),
        (["--loss_type", "hinge"], "'hinge' is `alignlab train hinge`"),
        (["--loss_type", "apo_down"], "'apo_down' is `alignlab train apo --variant down`"),
        (["--pref_loss", "simpo"], "--pref_loss: .*'simpo' is `alignlab train simpo`"),
        (["--loss_type", "discopop"], "'discopop' is none of them; objectives: .*dpo.*sft"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_misuse_is_told_with_the_way_out(argv, message):
    with pytest.raises((ValueError, OSError), match=message):
        parse(*argv)


def test_command_line_over_file_over_default(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("beta: 1e-3\nuse-peft: yes\nlora_target_modules: [q, v]\nmodel_name_or_path: gpt2\nratios: .1,.2\n")
    values = parse("--config", str(path), "--beta", "2")
    assert values["beta"] == 2.0
    assert values["use_peft"] is True
    assert values["lora_target_modules"] == ("q", "v")
    assert values["model"] == "gpt2"
    assert values["ratios"] == (0.1, 0.2)
    assert values["lora_r"] == 16
    assert parse("--config", str(path))["beta"] == 1e-3


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("null", False), ("", False), ("'True'", True), ("runs/x", "runs/x")]
)
def test_a_switch_that_may_be_a_path_from_a_file(tmp_path, text, value):
    """A file written for TRL says `resume_from_checkpoint: null`."""
    path = tmp_path / "c.yaml"
    path.write_text(f"resume: {text}\n")
    found = parse("--config", str(path))["resume"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("betta: 1\n", "c.yaml: .*no flag betta; did you mean beta"),
        ("beta: x\n", "c.yaml: beta: expected a number, got 'x'"),
        ("- 1\n", "expected lines `flag: value`, got list"),
        ("beta: [1\n", "not YAML"),
        ("cutoff_len: 5\n", "max_length"),
        ("config: other.yaml\n", "c.yaml: config: a file of flags cannot name another"),
        ("dataset: {a: b}\n", "c.yaml: dataset: expected text or null, got a mapping"),
    ],
)
def test_a_bad_file_is_named(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        parse("--config", str(path))


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "c.yaml").write_bytes(b"seed: \xff\xfe")
    with pytest.raises(ValueError, match="c.yaml: not UTF-8 text: invalid start byte at byte 6"):
        parse("--config", str(tmp_path / "c.yaml"))


def test_a_date_in_a_file_is_text(tmp_path):
    """YAML reads 2024-01-01 as a date; as a folder's name it is the words that were written."""
    (tmp_path / "c.yaml").write_text("output_dir: 2024-01-01\nnames: [2024-01-02]\n")
    values = parse("--config", str(tmp_path / "c.yaml"))
    assert values["output_dir"] == "2024-01-01"
    assert values["names"] == ("2024-01-02",)


def test_required_flags_are_asked_for():
    @dataclass(frozen=True, kw_only=True)
    class Needy:
        prompt: str
        """what"""

    with pytest.raises(ValueError, match="missing --prompt"):
        flags.parse("alignlab sample", [flags.Group("x", Needy)], [])


def test_help_shows_every_flag_with_its_words():
    page = flags.show_help(PROG, GROUPS, "DPO.")
    assert "strength, > 0; 5 % is common [a number; default 0.1]" in " ".join(page.split())
    for flag in flags.flags_of(GROUPS).values():
        assert f"--{flag.name}" in page
        assert flag.doc, flag.name


def test_build_fills_a_dataclass_from_flags_of_its_names():
    assert flags.build(Config, parse("--beta", "3")) == Config(beta=3.0)


def test_names_of_transformers_and_trl_are_all_there():
    """Those of transformers are read from the version at hand, so that one it has given up is noticed."""
    from transformers import TrainingArguments

    from alignlab.train.config import TrainConfig

    configs = (TrainConfig, options.Run, options.Peft, options.Data, options.Evaluation, options.Loading)
    flags_ = flags.flags_of([flags.Group("", config) for config in configs])
    of_transformers = {
        "output_dir", "learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs",
        "max_steps", "warmup_steps", "lr_scheduler_type", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon",
        "max_grad_norm", "bf16", "gradient_checkpointing", "logging_steps", "eval_steps", "save_steps",
        "save_total_limit", "seed", "report_to", "resume_from_checkpoint", "use_cpu", "fsdp",
    }  # fmt: skip
    theirs = {field.name for field in dataclasses.fields(TrainingArguments)}
    assert of_transformers <= theirs
    assert theirs & set(flags_) == of_transformers
    of_trl = {
        "max_length", "use_peft", "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "model_name_or_path",
        "model_revision", "trust_remote_code", "dtype", "dataset_name", "dataset_config", "dataset_train_split",
        "dataset_test_split", "disable_dropout", "attn_implementation",
    }  # fmt: skip
    assert {name for name in of_trl | of_transformers if spelling.resolve(PROG, name, flags_) not in flags_} == set()


def test_what_a_loss_type_is_here_runs():
    """The command of every hint has the flags that it names."""
    from alignlab.cli import runs
    from alignlab.core.find import find

    for command in set(spelling.LOSSES.values()):
        name, *rest = command.split()
        module = find("objectives", name)
        values = flags.parse(PROG, runs.groups_of("train", flags.Group("Method", module.Config)), rest)
        assert all(getattr(flags.build(module.Config, values), key[2:]) for key in rest[::2])


def test_every_loss_type_of_trl_has_an_answer():
    """TRL 1.16's of DPO: sorted ones and discopop are no methods here; all others are."""
    dpo = {
        "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "apo_zero", "apo_down",
        "sft", "sigmoid_norm",
    }  # fmt: skip
    assert dpo <= set(spelling.LOSSES)
    assert not {"aot", "aot_unpaired", "discopop"} & set(spelling.LOSSES)


def test_the_attention_that_is_asked_for_is_loaded(capsys):
    from typing import get_args

    from alignlab.cli.actions import load_model
    from alignlab.engine import flex

    groups = [flags.Group("Run", options.Run), flags.Group("Loading", options.Loading)]
    for given, expected in (([], "sdpa"), (["--attn_implementation", "eager"], "eager")):
        values = flags.parse(PROG, groups, given)
        assert load_model(values).module.config._attn_implementation == expected
    named, nothing = get_args(options.Loading.__annotations__["attn_implementation"])
    assert (get_args(named), nothing) == (flex.CHOICES, type(None))
    with pytest.raises(ValueError, match=r"--attn_implementation.*flex_attention"):
        flags.parse(PROG, groups, ["--attn_implementation", "kernels/x"])
