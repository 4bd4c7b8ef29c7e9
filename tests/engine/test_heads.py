import copy

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import tiny_models
from alignlab.engine import heads
from alignlab.engine.agreement import check_again
from alignlab.engine.encode import Example, collate
from alignlab.engine.load import LoadError, Lora, load, save
from alignlab.engine.plan import plan
from alignlab.engine.score import score

PROMPTS = [[7, 9, 30, 41, 12], [8], [100, 101, 102, 103, 104, 105, 106, 107, 33, 34, 35]]
COMPLETIONS = [[[50, 51, 2], [60, 61, 62, 63, 64, 2]], [[2]], [[70, 2], [71, 72, 73, 74, 75, 76, 77, 78, 2]]]


def batch(pad_id=0, cut=None):
    """Ragged completions; `cut`: completion -> prefixes of it, as the steps of a solution are."""
    return collate([Example(prompt_ids=p, completions=tuple(c)) for p, c in zip(PROMPTS, cut or COMPLETIONS)], pad_id)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Saved language models, by architecture."""
    found = {name: tmp_path_factory.mktemp("models") / name for name in tiny_models.ARCHITECTURES}
    for name, folder in found.items():
        save(tiny_models.make_model(name), folder)
    return found


@pytest.fixture(params=tiny_models.ARCHITECTURES)
def model(request, folders):
    return load(folders[request.param], head="fresh")


def stock(module, prompt, completion):
    """What the stock model returns for one sequence, in float64."""
    twin = copy.deepcopy(module).double()
    with torch.no_grad():
        return twin(input_ids=torch.tensor([[*prompt, *completion]])).logits[0, 0].item()


@pytest.mark.parametrize("share", [True, False, None])
def test_values_are_those_of_the_stock_model_at_every_prefix(model, share):
    view = score(model.module, batch(), share=share)
    rows = [(p, c) for p, some in zip(PROMPTS, COMPLETIONS) for c in some]
    for n, (prompt, completion) in enumerate(rows):
        for t in range(len(completion)):
            wanted = stock(model.module, prompt, completion[: t + 1])
            assert view.value[n, t].item() == pytest.approx(wanted, abs=2e-5)
        assert (view.value[n, len(completion) :] == 0).all()
    assert len({round(v, 5) for v in view.value[view.value != 0].tolist()}) == sum(len(c) for _, c in rows)
    assert (view.logp == 0).all()


@pytest.mark.parametrize("share", [True, False])
def test_where_the_end_is_padding_it_is_passed_over_as_the_stock_model_does(folders, share):
    model = load(folders["llama"], head="fresh")
    model.module.config.pad_token_id = 2
    value = score(model.module, batch(), share=share).value
    row = 0
    for prompt, some in zip(PROMPTS, COMPLETIONS):
        for completion in some:
            wanted = stock(model.module, prompt, completion)
            assert value[row, len(completion) - 1].item() == pytest.approx(wanted, abs=2e-5)
            row += 1
    assert value[0, 2] == value[0, 1] != value[0, 0]


@pytest.mark.parametrize("share", [True, False])
def test_padding_and_batches_change_neither_value_nor_gradient(folders, share):
    model = load(folders["gemma2"], head="fresh", dtype="float64")
    found = []
    with tiny_models.Float64():
        for pad, alone in ((0, False), (317, False), (0, True)):
            model.module.zero_grad()
            whole = batch(pad)
            parts = [whole]
            if alone:
                parts = [
                    collate([Example(prompt_ids=p, completions=tuple(c))], pad) for p, c in zip(PROMPTS, COMPLETIONS)
                ]
            values = [score(model.module, part, share=share).value for part in parts]
            for value in values:
                (value**2).sum().backward()
            grads = {name: p.grad.clone() for name, p in model.module.named_parameters()}
            found.append((torch.cat([v[v != 0] for v in values]), grads))
    for value, grads in found[1:]:
        torch.testing.assert_close(value, found[0][0], atol=1e-12, rtol=1e-12)
        for name, gradient in grads.items():
            torch.testing.assert_close(gradient, found[0][1][name], atol=1e-11, rtol=1e-9)
    assert all(g.abs().max() > 0 for g in found[0][1].values())


def test_solutions_up_to_each_step_are_read_once(folders):
    long = [71, 72, 73, 74, 75, 76, 77, 78]
    steps = [[], [], [long[:2], long[:5], long]]
    given = batch(0, steps)
    model = load(folders["qwen3"], head="fresh")
    wanted, place = heads.asked(given, heads.pad_id_of(model.module))
    scored = [[t for t, m in enumerate(row) if m] for row in wanted.mask.tolist()]
    (row,) = plan([PROMPTS[2]], wanted.ids.tolist(), [0] * 3, scored, row_tokens=999)
    assert len(row.ids) == len(PROMPTS[2]) + len(long)
    value = score(model.module, given, share=True).value
    assert value[0, 1] == value[1, 1] == value[2, 1]
    assert value[1, 4] == value[2, 4]


def test_a_sequence_may_be_as_long_as_the_model(tmp_path):
    save(tiny_models.make_model("gpt2", positions=16), tmp_path / "short")
    model = load(tmp_path / "short", head="fresh")
    for completion, fits in (([50] * 11, True), ([50] * 12, False)):
        groups = collate([Example(prompt_ids=PROMPTS[0], completions=(completion,))], 0)
        for share in (True, False):
            if fits:
                wanted = stock(model.module, PROMPTS[0], completion)
                assert score(model.module, groups, share=share).value[0, 10].item() == pytest.approx(wanted, abs=2e-5)
            else:
                with pytest.raises(ValueError, match="17 tokens, but the model takes 16"):
                    score(model.module, groups, share=share)


def test_bfloat16_keeps_the_head_in_float32(folders):
    model = load(folders["llama"], head="fresh")
    exact = score(model.module, batch()).value
    check_again(model.module)
    with torch.autocast("cpu", torch.bfloat16):
        value = score(model.module, batch()).value
    assert value.dtype == torch.float32
    assert (value != value.bfloat16()).any()
    assert 0 < (value - exact).abs().max() < 0.1 * exact.abs().max()


def test_a_saved_reward_model_opens_as_a_stock_one(model, tmp_path):
    save(model, tmp_path / "reward")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward")
    assert again.config.num_labels == 1
    padded = torch.tensor([[*PROMPTS[1], 2, 0, 0], [*PROMPTS[0][:2], 50, 2]])
    with torch.no_grad():
        pooled = again(input_ids=padded, attention_mask=(padded != 0).long()).logits[:, 0]
    assert pooled[0].item() == pytest.approx(stock(model.module, PROMPTS[1], [2]), abs=2e-5)
    assert pooled[1].item() == pytest.approx(stock(model.module, PROMPTS[0][:2], [50, 2]), abs=2e-5)
    ours = load(tmp_path / "reward", head="trained")
    torch.testing.assert_close(score(ours.module, batch()).value, score(model.module, batch()).value)
    assert load(tmp_path / "reward", head="fresh").identity.split("@")[1] == ours.identity.split("@")[1]


def test_a_fresh_head_is_the_same_each_time_and_no_head_is_made_up(folders):
    first, second = (load(folders["llama"], head="fresh") for _ in range(2))
    assert first.identity == second.identity
    assert first.module.score.weight.std().item() == pytest.approx(0.02, rel=0.5)
    assert first.module.config.pad_token_id == first.tokenizer.pad_token_id == 0
    with pytest.raises(LoadError, match="not a whole reward model: 1 weights missing \\(score.weight"):
        load(folders["llama"], head="trained")


def test_models_without_one_number_are_refused(folders, tmp_path):
    two = AutoModelForSequenceClassification.from_pretrained(folders["llama"], num_labels=2)
    two.save_pretrained(tmp_path / "two")
    tiny_models.make_tokenizer().save_pretrained(tmp_path / "two")
    with pytest.raises(ValueError, match="2 label.* expected one label"):
        load(tmp_path / "two", head="trained")
    with pytest.raises(ValueError, match="1 weights mismatched .*score.weight"):
        load(tmp_path / "two", head="fresh")
    with pytest.raises(ValueError, match="leave `at` out"):
        score(load(folders["llama"], head="fresh").module, batch(), torch.zeros(5, 9, 1, dtype=torch.long))


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_an_adapter_keeps_its_head_and_merges_into_a_stock_model(folders, tmp_path, architecture):
    model = load(folders[architecture], head="fresh", lora=Lora(r=2))
    trained = [name for name, p in model.module.named_parameters() if p.requires_grad]
    assert any("score" in name for name in trained)
    assert not any("score" in name and "lora" in name for name in trained)
    before = score(model.module, batch()).value.detach()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.module.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.1)
    value = score(model.module, batch()).value.detach()
    assert (value - before).abs().max() > 0.1
    save(model, tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()
    again = load(tmp_path / "adapter", head="trained")
    torch.testing.assert_close(score(again.module, batch()).value.detach(), value)
    model.module = heads.merged(model.module)
    save(model, tmp_path / "whole")
    whole = AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole")
    torch.testing.assert_close(score(whole, batch()).value.detach(), value, atol=1e-4, rtol=1e-4)
