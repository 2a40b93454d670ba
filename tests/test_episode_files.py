"""Episodes in files: what is read and written, what is refused, predictions and their score."""

import copy
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_dataset, tiny_encoder_folder

import relpt
from relpt.episodes import load_predictions

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return relpt.Encoder.from_pretrained(tiny_encoder_folder(tmp_path_factory.mktemp("encoder")), num_threads=1)


@pytest.fixture
def data():
    return relpt.load(tiny_dataset(6, 9), name="six")


def task(**options):
    return relpt.FewShot(**{"n_way": 4, "k_shot": 2, "n_query": 2, "episodes": 60, **options})


def sentence(i):
    """An instance in FewRel's form, of tokens a_i, b_i and others."""
    return {"tokens": [f"a{i}", "met", f"b{i}", "."], "h": [f"a{i}", "", [[0]]], "t": [f"b{i}", f"Q{i}", [[2]]]}


def episodes(n=3):
    """n episodes of 2 ways and 2 shots over 7 sentences."""
    return [
        {
            "meta_train": [[sentence(i), sentence(1)], [sentence(2), sentence(3)]],
            "meta_test": sentence(4 + i),
            "relation": ["P1", "P2"],
        }
        for i in range(n)
    ]


# -- reading and writing -----------------------------------------------------------------------------------------------


def test_each_different_sentence_is_one_row(tmp_path):
    path = tmp_path / "test.json"
    path.write_text(json.dumps(episodes()))
    for source in (path, str(path), episodes()):
        given = relpt.load_episodes(source)
        assert (len(given), given.n_way, given.k_shot, given.answers) == (3, 2, 2, None)
        assert sorted(i.head_text for i in given.data) == [f"a{i}" for i in range(7)]
        texts = [[[given.data[row].head_text for row in way] for way in ways] for ways in given.support.tolist()]
        assert texts == [[[f"a{i}", "a1"], ["a2", "a3"]] for i in range(3)]
        assert [given.data[row].tail_id for row in given.query.tolist()] == ["Q4", "Q5", "Q6"]


def test_sentences_with_other_mentions_are_different():
    records = episodes(1)
    turned = {**sentence(4), "h": ["b4", "", [[2]]], "t": ["a4", "", [[0]]]}
    records.append({**copy.deepcopy(records[0]), "meta_test": turned})
    given = relpt.load_episodes(records)
    assert [given.data[row].head_text for row in given.query.tolist()] == ["a4", "b4"]


def test_what_is_saved_is_read_again(tmp_path, data):
    drawn = task(nota_rate=0.3).draw(data)
    drawn.save(tmp_path / "test.json")
    again = relpt.load_episodes(tmp_path / "test.json")
    assert again.answers.tolist() == drawn.answers.tolist()
    assert (drawn.answers == 4).any()
    for one, other in ((drawn.support, again.support), (drawn.query, again.query)):
        for a, b in zip(one.ravel().tolist(), other.ravel().tolist(), strict=True):
            a, b = drawn.data[a], again.data[b]
            assert (a.text, a.head, a.tail, a.head_name, a.tail_type) == (
                b.text,
                b.head,
                b.tail,
                b.head_name,
                b.tail_type,
            )
    assert not again.data.labelled
    assert not list(tmp_path.glob(".*"))


def test_a_mention_that_ends_inside_a_word_is_cut_off_and_counted(tmp_path):
    text = "Curie, born in Warsaw."
    record = {"text": text, "h": {"pos": [0, 5]}, "t": {"pos": [15, 21]}, "relation": "r"}
    rows = np.zeros((1, 1, 1), np.int64)
    given = relpt.Episodes(relpt.load([record]), rows, rows[0, 0])
    with pytest.warns(UserWarning, match="1 of 1 sentences get other blanks"):
        given.save(tmp_path / "one.json")
    again = relpt.load_episodes(tmp_path / "one.json").data[0]
    assert (again.text, again.head_text, again.tail_text) == ("Curie , born in Warsaw .", "Curie", "Warsaw")


def test_drawn_episodes_are_those_that_are_evaluated(encoder, data, tmp_path):
    for few in (task(), task(nota_rate=0.3, nota_threshold=0.95), task(n_query=1, similarity="euclidean")):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            few.draw(data).save(tmp_path / "test.json")
        said = few.predict(encoder, tmp_path / "test.json", inputs="OnlyC")
        score = relpt.score_predictions(said, tmp_path / "test.json")
        result = few.evaluate(encoder, data, inputs="OnlyC")
        assert score["accuracy"] == pytest.approx(result.accuracy, abs=1e-12)
        assert score.get("none_accuracy") == pytest.approx(result.none_accuracy, abs=1e-12)
        assert score["episodes"] == 60 * 4 * few.n_query


class Counting:
    """An encoder that counts what it is given and says where the head starts."""

    def __init__(self):
        self.sentences = []

    def encode(self, data, *, inputs, max_length, show_progress_bar):
        self.sentences += [instance.text for instance in data]
        return np.array([[1.0, float(i.head_text[1:]) + 1] for i in data], np.float32)


def test_predict_encodes_each_sentence_once_and_takes_the_nearest_way():
    counting = Counting()
    said = relpt.FewShot(similarity="euclidean", n_way=5).predict(counting, episodes())
    assert len(counting.sentences) == len(set(counting.sentences)) == 7
    assert said.dtype == np.int32
    assert said.tolist() == [1, 1, 1]  # 5, 6 and 7 are nearer to the mean of 3 and 4 than to that of 2 and i + 1
    few = relpt.FewShot(similarity="euclidean", nota_threshold=-5.0)  # squared distances 2.25, 6.25, 12.25
    assert few.predict(counting, episodes()).tolist() == [1, 2, 2]
    assert few.predict(counting, episodes(), none_label=-1).tolist() == [1, -1, -1]
    with pytest.raises(ValueError, match="none_label is 1, the number of a way; expected -1, say, or 2"):
        few.predict(counting, episodes(), none_label=1)


# -- what is refused ---------------------------------------------------------------------------------------------------


def broken(change):
    records = copy.deepcopy(episodes())
    change(records)
    return records


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r[1].pop("meta_test"), r"episode 1: meta_test: missing; expected .* got an object with \['meta_tr"),
        (lambda r: r.__setitem__(2, [1]), "episode 2: meta_train: missing; .* got a list"),
        (lambda r: r[0].update(meta_train={}), "episode 0: meta_train: expected lists of instances, one a way, got {}"),
        (lambda r: r[0].update(meta_train=[[]]), "episode 0: meta_train: expected lists of instances"),
        (lambda r: r[1].update(meta_test=[sentence(1)]), "episode 1: meta_test: expected an instance, got a list"),
        (lambda r: r[1]["meta_train"][1].pop(), r"episode 1: meta_train\[1\]: has 1 instances and meta_train\[0\] 2"),
        (lambda r: r[2]["meta_train"].pop(), "episode 2: meta_train: is 1-way 2-shot, and episode 0 2-way 2-shot"),
        (
            lambda r: r[1]["meta_train"][0][1]["t"].__setitem__(2, [[9]]),
            r"episode 1: meta_train\[0\]\[1\]\.t\[2\]: \(9, 10\) is outside the sentence's 4 tokens",
        ),
        (lambda r: r[0]["meta_test"].pop("h"), r"episode 0: meta_test\.h: missing"),
        (lambda r: r[0]["meta_test"]["h"].__setitem__(0, "x"), r"episode 0: meta_test\.h\[2\]: .* reads 'a4', but the"),
        (lambda r: r[0].update(answer=0), "episode 1: answer: missing, though other episodes have one"),
        (lambda r: r[2].update(answer=3), "episode 2: answer: is 3; expected 0 to 2, or -1"),
    ],
)
def test_what_is_no_episode_is_named(tmp_path, change, message):
    path = tmp_path / "test.json"
    path.write_text(json.dumps(broken(change)))
    with pytest.raises(relpt.FormatError, match=f"{path}: {message}"):
        relpt.load_episodes(path)


def test_what_is_no_file_of_episodes_is_named(tmp_path):
    path = tmp_path / "test.json"
    for text, message in (
        ("{}", r"test.json: expected a list of .*, got an object"),
        ("[]", "test.json: expected a list of .*, got an empty list"),
        ("[1,", "test.json: malformed JSON at"),
    ):
        path.write_text(text)
        with pytest.raises(relpt.FormatError, match=message):
            relpt.load_episodes(path)
    named = broken(lambda r: r[0]["meta_test"]["h"].__setitem__(0, "x"))
    assert len(relpt.load_episodes(named, check_names=False)) == 3


# -- predictions -------------------------------------------------------------------------------------------------------


def test_predictions_are_scored(tmp_path):
    (tmp_path / "pred.json").write_text("[0, 1, 2, -1, 5, 0]")
    score = relpt.score_predictions(tmp_path / "pred.json", [0, 1, 1, 5, -1, -1], n_way=5)
    assert (score["way"], score["episodes"], score["accuracy"]) == (5, 6, 4 / 6)
    assert (score["known_accuracy"], score["none_accuracy"]) == (2 / 3, 2 / 3)
    plain = relpt.score_predictions(np.array([0, 1, 1]), [0, 1, 2], n_way=3)
    assert set(plain) == {"way", "episodes", "accuracy", "ci95"}
    assert plain["ci95"] == pytest.approx(1.96 * np.std([1, 1, 0], ddof=1) / np.sqrt(3))


def test_answers_may_stand_in_the_episodes(tmp_path):
    path = tmp_path / "test.json"
    path.write_text(json.dumps([{**episode, "answer": i - 1} for i, episode in enumerate(episodes())]))
    assert load_predictions(path)[0].tolist() == [2, 0, 1]
    assert relpt.score_predictions([2, 0, 0], path)["accuracy"] == 2 / 3
    opened = relpt.load_episodes(path)
    assert relpt.score_predictions([2, 0, 0], opened) == relpt.score_predictions([2, 0, 0], path)
    assert relpt.score_predictions(opened, opened)["accuracy"] == 1
    with pytest.raises(relpt.FormatError, match="the episodes have no answers"):
        relpt.score_predictions([2, 0, 0], episodes())
    with pytest.raises(ValueError, match="answers: the episodes have no answers; give a list of them"):
        relpt.score_predictions([2, 0, 0], relpt.load_episodes(episodes()))
    with pytest.raises(relpt.FormatError, match="answers: expected a list of whole numbers, got"):
        relpt.score_predictions([2, 0, 0], 3)


@pytest.mark.parametrize(
    ("said", "answers", "message"),
    [
        ([0, 6], [0, 1], "number 1 is 6; expected 0 to 4, and 5 or -1 for none of the above"),
        ([0, True], [0, 1], "number 1 is True"),
        ([0, "1"], [0, 1], "number 1 is '1'"),
        ([0], [0, 1], "got 1 prediction and 2 answers; give one for each"),
        ([], [], "got 0 predictions and 0 answers"),
        ({"0": 1}, [0], "expected a list of whole numbers, got an object"),
    ],
)
def test_what_cannot_be_scored_is_named(said, answers, message):
    with pytest.raises(ValueError, match=message):
        relpt.score_predictions(said, answers, n_way=5)


def test_numbers_alone_do_not_say_how_many_ways_there_are():
    with pytest.raises(ValueError, match="does not say how many ways"):
        relpt.score_predictions([0], [0])


# -- real sentences ----------------------------------------------------------------------------------------------------


def real(name):
    if not (REAL / name).is_file():
        pytest.skip(f"needs the datasets: {REAL / name} is absent")
    return relpt.load(REAL / name)


@pytest.mark.real_data
def test_real_sentences_keep_their_tokens(tmp_path):
    data = real("fewrel/val_pubmed.json")
    raw = json.loads((REAL / "fewrel/val_pubmed.json").read_text(encoding="utf-8"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task(n_way=10, k_shot=5, episodes=30).draw(data).save(tmp_path / "test.json")
    known = [(i["tokens"], i["h"][2][0], i["t"][2][0]) for items in raw.values() for i in items]
    for episode in json.loads((tmp_path / "test.json").read_text(encoding="utf-8")):
        for i in (episode["meta_test"], *(i for way in episode["meta_train"] for i in way)):
            assert (i["tokens"], i["h"][2][0], i["t"][2][0]) in known


@pytest.mark.real_data
def test_pubmed_is_evaluated_with_a_threshold_from_wikipedia(encoder):
    pubmed, wikipedia = real("fewrel/val_pubmed.json"), real("fewrel/val_wiki.json")
    assert (len(pubmed), len(pubmed.labels)) == (1000, 10)
    few = relpt.FewShot(n_way=5, episodes=2000, nota_rate=0.5, nota_score="similarity+margin")
    few.fit_threshold(encoder, wikipedia[::16])
    result = few.evaluate(encoder, pubmed)
    assert 0.2 < result.accuracy < 0.9
    plain = relpt.FewShot(n_way=10, k_shot=5, episodes=500).evaluate(encoder, pubmed)
    assert plain.accuracy > 0.1 + plain.ci95  # a tenth by chance; random weights tell words apart
