import pytest

from alignlab.core import evidence
from alignlab.engine.steered import Steered
from alignlab.steering.majority import Config, intervene


@pytest.fixture
def voted(reader):
    def answers(prompts, least_votes=1, **options):
        steered = Steered(reader, [intervene(None, Config(least_votes=least_votes), None)])
        return [[s.text for s in samples] for samples in steered.sample(prompts, **options)]

    return answers


@pytest.mark.parametrize(
    ("values", "winner"),
    [
        (("Rome", "Oslo", "Oslo", "Rome", "Oslo"), "Oslo"),
        (("Rome", "Rome", "Oslo", "Oslo", "Rome"), "Rome"),
        (("Rome",), "Rome"),
        (("Oslo", "Rome"), "Oslo"),
        (("Rome", "Oslo", "Oslo", "Rome"), "Rome"),
        (("Nowhere", "Nowhere", "Oslo"), "Oslo"),
    ],
    ids=["three of five", "other three", "one", "tie", "tie of two", "silence has no vote"],
)
def test_the_commonest_answer_wins_and_ties_go_to_the_earliest(voted, retrieve, values, winner):
    assert voted([retrieve(*values)]) == [[f"Answer: {winner}"]]


def test_the_last_passage_alone_would_have_won(reader, retrieve):
    """Read together, this reader takes the last passage; isolation is what changes that."""
    prompt = retrieve("Rome", "Rome", "Oslo")
    assert reader.sample([prompt])[0][0].text == "Answer: Oslo"
    steered = Steered(reader, [intervene(None, Config(), None)])
    assert steered.sample([prompt])[0][0].text == "Answer: Rome"


@pytest.mark.parametrize("head", [True, False])
def test_each_passage_is_asked_about_alone_and_greedily(reader, retrieve, head):
    Steered(reader, [intervene(None, Config(), None)]).sample(
        [retrieve("Rome", "Oslo", head=head)], temperature=0.7, n=3
    )
    (call,) = reader.calls
    name = "1 (Herald 3)" if head else "1 (3)"
    assert [evidence.text_of(prompt) for prompt in call["prompts"]] == [
        f"{name}: Ada is in Rome.\nQuestion: Where is Ada?",
        f"{name}: Ada is in Oslo.\nQuestion: Where is Ada?",
    ]
    assert (call["n"], call["temperature"]) == (1, 0.0)


def test_each_prompt_has_its_own_vote(voted, retrieve):
    prompts = [retrieve("Rome"), retrieve("Oslo", "Oslo", "Rome"), retrieve("Paris", "Rome", "Paris")]
    assert voted(prompts) == [["Answer: Rome"], ["Answer: Oslo"], ["Answer: Paris"]]
    assert voted(prompts[::-1]) == [["Answer: Paris"], ["Answer: Oslo"], ["Answer: Rome"]]


def test_spelling_does_not_split_the_vote(voted, retrieve):
    assert voted([retrieve("Rome", "Oslo", "oslo")]) == [["Answer: Oslo"]]


def test_too_few_votes_give_no_answer(voted, retrieve):
    assert voted([retrieve("Rome", "Oslo", "Oslo")], least_votes=2) == [["Answer: Oslo"]]
    assert voted([retrieve("Rome", "Oslo", "Oslo")], least_votes=3) == [[""]]
    assert voted([retrieve("Nowhere", "Nowhere")]) == [[""]]


def test_one_vote_serves_all_samples(voted, retrieve):
    assert voted([retrieve("Rome", "Rome")], n=3) == [["Answer: Rome"] * 3]


def test_a_question_without_passages_is_answered_from_memory(voted, retrieve):
    bare = evidence.ask("Where is Ada?")
    assert voted([retrieve("Rome"), bare, retrieve("Oslo")]) == [["Answer: Rome"], ["Answer: Home"], ["Answer: Oslo"]]
    assert voted([bare], n=2) == [["Answer: Home"] * 2]


def test_the_cost_is_that_of_all_its_questions(reader, retrieve):
    steered = Steered(reader, [intervene(None, Config(), None)])
    one = steered.sample([retrieve("Rome")])[0][0].prompt_tokens
    three = steered.sample([retrieve("Rome", "Rome", "Rome")])[0][0].prompt_tokens
    assert three == 3 * one > 0


def test_identity_names_the_vote(reader):
    names = {Steered(reader, [intervene(None, Config(least_votes=n), None)]).identity for n in (1, 2)}
    assert names == {"reader@0+majority(1)", "reader@0+majority(2)"}
