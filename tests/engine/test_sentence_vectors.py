import importlib.util

import numpy as np
import pytest
import torch

from alignlab.engine import sentence_vectors as sentences


def test_words_are_unit_vectors_whatever_their_order():
    texts = ["The mill grinds corn.", "corn grinds the mill", "A ferry crosses the lake.", "", "?!"]
    found = sentences.words(texts)
    assert found.shape == (5, sentences.SIZE)
    assert np.linalg.norm(found, axis=1) == pytest.approx([1, 1, 1, 0, 0])
    assert found[0] == pytest.approx(found[1])
    assert 0 < found[0] @ found[2] < 0.2  # `the` alone is shared, and it counts for little
    assert sentences.words(texts[:3]) == pytest.approx(sentences.words(texts[:3]))


def test_the_weight_of_a_word_by_hand():
    """Two texts: `a` in both weighs log(3/2), `b` and `c` in one each log 3, and two `b` sqrt 2 times that."""
    first, second = sentences.words(["a b b", "a c"])
    common, rare = np.log(1.5), np.log(3)
    cosine = common**2 / np.sqrt((common**2 + 2 * rare**2) * (common**2 + rare**2))
    assert first @ second == pytest.approx(cosine, rel=1e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_models):
    """A random BERT of two layers."""
    from transformers import BertConfig, BertModel

    path = tmp_path_factory.mktemp("encoder")
    tokenizer = tiny_models.make_tokenizer()
    tokenizer.save_pretrained(path)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).eval().save_pretrained(path)
    return path


def test_a_transformer_is_the_mean_over_real_tokens(folder):
    from transformers import AutoModel, AutoTokenizer

    texts = ["The mill.", "A ferry crosses the lake at noon, and then it comes back.", "Tea"]
    found = sentences.encoder(str(folder))(texts)
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    for text, vector in zip(texts, found):
        with torch.no_grad():
            mean = model(**tokenizer([text], return_tensors="pt")).last_hidden_state[0].mean(0).numpy()
        assert vector == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)
    assert sentences.encoder(str(folder))(texts[::-1]) == pytest.approx(found[::-1], abs=1e-5)


def test_the_first_token_where_the_encoder_says_so(folder, tmp_path):
    import shutil

    other = shutil.copytree(folder, tmp_path / "first")
    (other / "1_Pooling").mkdir()
    (other / "1_Pooling" / "config.json").write_text('{"word_embedding_dimension": 16, "pooling_mode_cls_token": true}')
    text = ["The mill grinds corn."]
    first, mean = (sentences.encoder(str(path))(text)[0] for path in (other, folder))
    assert np.abs(first - mean).max() > 1e-3


def test_what_is_missing_is_said(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="--encoder no/such: no sentence encoder could be loaded"):
        sentences.encoder("no/such")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'alignlab\[sentences\]'"):
        sentences.encoder("minilm")


def test_other_weights_are_refused(monkeypatch, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other")
    found = importlib.util.spec_from_file_location(sentences.PACKAGE, tmp_path / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    with pytest.raises(ValueError, match="are not those expected"):
        sentences.encoder("minilm")


@pytest.mark.skipif(importlib.util.find_spec(sentences.PACKAGE) is None, reason="needs the extra `sentences`")
def test_the_published_similarities_of_minilm():
    """The three sentences that the model's documentation compares."""
    texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    found = sentences.encoder("minilm")(texts)
    similar = found @ found.T
    assert (similar[0, 1], similar[0, 2], similar[1, 2]) == pytest.approx((0.6660, 0.1046, 0.1411), abs=2e-4)
