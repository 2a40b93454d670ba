"""Pairs of entities, single sentences in shuffled epochs, and several sources in one batch."""

import numpy as np
import pytest
from corpora import TOKENS, arrays_of, random_arrays, relation_pairs, sentence, sequences, words_of
from tiny import tiny_dataset, tiny_encoder_folder

import relpt
from relpt import _core
from relpt.objectives import RC

pytestmark = pytest.mark.core


def entity_pairs(count, *, positive_share=0.5, hard_share=0.5):
    return {"kind": "entities", "count": count, "positive_share": positive_share, "hard_share": hard_share}


def instances(count, *, whole_epochs=False):
    return {"kind": "instances", "count": count, "whole_epochs": whole_epochs}


def episodes(count, n_way, k_shot, n_query):
    return {"kind": "episodes", "count": count, "n_way": n_way, "k_shot": k_shot, "n_query": n_query}


def bags(count, bag_size):
    return {"kind": "bags", "count": count, "bag_size": bag_size}


def sampler_of(arrays, *sources, **options):
    options = {"seed": 42, "max_length": 32, "prefetch": False, "mlm_probability": 0, **options}
    return _core.Sampler(_core.Corpus(**arrays), TOKENS, sources=sources, **options)


def arrays_with(pairs, seed=0):
    """Sentences of random words with these entities."""
    rng = np.random.default_rng(seed)
    return arrays_of([sentence(rng, 2, 1, 2, 1, 2) for _ in pairs], pairs=pairs)


# ---- single sentences


@pytest.mark.parametrize("n", [1, 2, 3, 5, 16, 17, 64, 65, 300])
def test_an_epoch_has_every_sentence_once(n):
    arrays = arrays_with(np.full((n, 2), -1))
    rows = np.concatenate([sampler_of(arrays, instances(7)).rows(step) for step in range(n)])
    epochs = rows[: n * (len(rows) // n)].reshape(-1, n)
    assert len(epochs) == 7
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(n))
    if n > 16:
        assert len({tuple(epoch) for epoch in epochs}) == 7


def test_the_order_of_sentences_depends_on_the_seed_and_not_on_their_number_in_a_step():
    arrays = arrays_with(np.full((50, 2), -1))
    orders = []
    for count, seed in ((5, 1), (20, 1), (5, 2)):
        sampler = sampler_of(arrays, instances(count), seed=seed)
        orders.append(np.concatenate([sampler.rows(step) for step in range(100 // count)]).tolist())
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize(("n", "count"), [(1, 7), (7, 7), (8, 7), (13, 7), (14, 7), (20, 1), (5, 64)])
def test_whole_epochs_end_with_a_short_step_and_are_in_the_same_order(n, count):
    arrays = arrays_with(np.full((n, 2), -1))
    whole, plain = (sampler_of(arrays, instances(count, whole_epochs=on)) for on in (True, False))
    steps = -(-n // count)
    orders = [[whole.rows(epoch * steps + step) for step in range(steps)] for epoch in range(4)]
    for parts in orders:
        assert [len(part) for part in parts[:-1]] == [count] * (steps - 1)
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(n))
    rows = np.concatenate([plain.rows(step) for step in range(4 * n // count + 1)])
    np.testing.assert_array_equal(np.concatenate([part for parts in orders for part in parts]), rows[: 4 * n])
    batch = whole.batch(steps - 1)
    np.testing.assert_array_equal(batch["relation"], arrays["relation"][orders[0][-1]])
    assert len(batch["cu_seqlens"]) == len(orders[0][-1]) + 1


def test_only_the_last_source_may_keep_its_epochs_whole():
    sampler_of(random_arrays(3), relation_pairs(4), instances(3, whole_epochs=True))
    with pytest.raises(ValueError, match="source 0 keeps its epochs whole; expected it to be the last"):
        sampler_of(random_arrays(3), instances(3, whole_epochs=True), relation_pairs(4))


def test_shuffling_is_uniform():
    """Where each of 11 sentences stands in 4,000 epochs: chi-square within 4.5 standard deviations of its mean."""
    sampler = sampler_of(arrays_with(np.full((11, 2), -1)), instances(11))
    epochs = np.array([sampler.rows(step) for step in range(4000)])
    counts = np.array([np.bincount(epochs[:, place], minlength=11) for place in range(11)])
    expected, freedom = 4000 / 11, 100
    assert ((counts - expected) ** 2 / expected).sum() < freedom + 4.5 * np.sqrt(2 * freedom)


def test_no_sentence_left():
    with pytest.raises(ValueError, match="no sentence left: the corpus has none"):
        sampler_of(arrays_of([]), instances(3))


# ---- pairs of entities


def shared(a, b):
    return len(set(a) & set(b))


@pytest.mark.parametrize(("positive_share", "hard_share"), [(0.5, 0.5), (0.25, 1.0), (0.5, 0.0), (1.0, 0.5), (0, 0.3)])
def test_pairs_of_entities_are_what_they_are_labelled(positive_share, hard_share):
    arrays = random_arrays(3, n_pairs=40)
    entities = np.stack([arrays["head_id"], arrays["tail_id"]], 1)
    sampler = sampler_of(arrays, entity_pairs(40, positive_share=positive_share, hard_share=hard_share))
    for step in range(20):
        batch, rows = sampler.batch(step), sampler.rows(step).reshape(-1, 2)
        pair = batch["pair"].reshape(-1, 2)
        assert (pair >= 0).all()
        same = pair[:, 0] == pair[:, 1]
        np.testing.assert_array_equal(same, (entities[rows[:, 0]] == entities[rows[:, 1]]).all(1))
        assert same.sum() == round(40 * positive_share)
        for first, second in rows[same]:
            assert words_of(arrays, first) != words_of(arrays, second)
        hard = sum(shared(entities[a], entities[b]) == 1 for a, b in rows[~same])
        assert hard >= int((~same).sum() * hard_share + 1e-9)


def test_anchors_and_easy_negatives_are_drawn_alike():
    """Uniform over the sentences of pairs that stand in two different ones: no side tells a label by its frequency."""
    pairs = [[1, 2]] * 6 + [[3, 4]] * 2 + [[5, 6]] + [[7, 8]] * 3 + [[-1, 8]]
    arrays = arrays_with(pairs)
    sampler = sampler_of(arrays, entity_pairs(500, hard_share=0))
    assert sampler.counts() == [(3, 2)]
    rows = np.concatenate([sampler.rows(step) for step in range(20)]).reshape(-1, 2, 2)  # positive or not, side
    for drawn in (rows[:, 0, 0], rows[:, 1, 0]):
        counts = np.bincount(drawn, minlength=13)
        assert counts[8] == counts[12] == 0
        expected = counts.sum() / 11
        assert ((counts[counts > 0] - expected) ** 2 / expected).sum() < 10 + 4.5 * np.sqrt(20)


def test_a_rare_hard_negative_is_found_in_either_role():
    pairs = [[1, 2]] * 400 + [[3, 4]] * 5 + [[9, 1]]
    sampler = sampler_of(arrays_with(pairs), entity_pairs(50, hard_share=1))
    for step in range(5):
        batch, rows = sampler.batch(step), sampler.rows(step).reshape(-1, 2)
        negative = np.diff(batch["pair"].reshape(-1, 2))[:, 0] != 0
        assert set(rows[negative, 1]) == {405}
        assert (rows[negative, 0] < 400).all()


def test_the_reverse_of_a_pair_is_another_pair_and_no_hard_negative():
    pairs = [[1, 2]] * 3 + [[2, 1]] * 3
    arrays = arrays_with(pairs)
    batch = sampler_of(arrays, entity_pairs(20, hard_share=0)).batch(0)
    assert set(batch["pair"]) == {0, 1}
    with pytest.raises(ValueError, match="no sentence shares exactly one entity with one of the 2 pairs"):
        sampler_of(arrays, entity_pairs(20, hard_share=0.5))


def test_without_a_pair_in_two_sentences():
    with pytest.raises(
        ValueError,
        match="no pair of entities stands in two different sentences: of 5 sentences 4 know both entities, "
        "4 different pairs, the most frequent one in 1; give data in which the same entities come again",
    ):
        sampler_of(arrays_with([[1, 2], [2, 3], [3, 4], [4, 5], [1, -1]]), entity_pairs(4))
    rng = np.random.default_rng(0)
    one = sentence(rng, 2, 1, 2, 1, 2)
    with pytest.raises(ValueError, match="the most frequent one in 3"):
        sampler_of(arrays_of([one] * 3, pairs=[[1, 2]] * 3), entity_pairs(4))
    with pytest.raises(ValueError, match=r"only 1 pair of entities stands in two different sentences \(of 2\)"):
        sampler_of(arrays_with([[1, 2], [1, 2], [3, 4]]), entity_pairs(4))


@pytest.mark.parametrize("name", ["positive_share", "hard_share"])
def test_shares_out_of_range(name):
    with pytest.raises(ValueError, match=f"{name} is 1.5; expected 0 .. 1"):
        sampler_of(random_arrays(3), entity_pairs(4, **{name: 1.5}))


# ---- episodes


@pytest.mark.parametrize(("n_way", "k_shot", "n_query"), [(5, 1, 1), (3, 4, 2), (2, 1, 6), (7, 1, 1), (1, 1, 1)])
def test_ways_are_different_relations_of_different_sentences(n_way, k_shot, n_query):
    arrays = random_arrays(3)
    sampler = sampler_of(arrays, episodes(6, n_way, k_shot, n_query))
    texts = [len({tuple(words_of(arrays, row)) for row in np.flatnonzero(arrays["relation"] == r)}) for r in range(7)]
    assert sampler.counts()[0][0] == sum(count >= k_shot + n_query for count in texts)
    for step in range(20):
        batch, rows = sampler.batch(step), sampler.rows(step).reshape(6, -1)
        np.testing.assert_array_equal(batch["relation"], arrays["relation"][rows.ravel()])
        for episode in rows:
            supports = arrays["relation"][episode[: n_way * k_shot]].reshape(n_way, k_shot)
            queries = arrays["relation"][episode[n_way * k_shot :]].reshape(n_way, n_query)
            assert len(set(supports[:, 0])) == n_way
            assert (supports == supports[:, :1]).all()
            assert (queries == supports[:, :1]).all()
            assert len({(*words_of(arrays, row), -1, arrays["relation"][row]) for row in episode}) == episode.size


def test_sentences_of_a_relation_are_drawn_alike_and_repeated_rows_share_one():
    """Sentence 0 stands in rows 0, 1 and 2: they are drawn as often together as each other sentence alone."""
    rng = np.random.default_rng(0)
    texts = [sentence(rng, 2, 1, 2, 1, 2) for _ in range(16)]
    sentences = [texts[0], texts[0], *texts]
    arrays = arrays_of(sentences, relation=[0] * 10 + [1] * 8, n_relations=2)
    sampler = sampler_of(arrays, episodes(50, 2, 1, 2))
    counts = np.bincount(np.concatenate([sampler.rows(step) for step in range(60)]), minlength=18)
    together = np.concatenate([[counts[:3].sum()], counts[3:]])
    expected = together.sum() / 16  # 3 of 8 sentences a way
    assert ((together - expected) ** 2 / expected).sum() < 15 + 4.5 * np.sqrt(30)
    assert ((counts[:3] - expected / 3) ** 2 / (expected / 3)).sum() < 2 + 4.5 * np.sqrt(4)


def test_episodes_depend_on_the_seed_and_not_on_their_number_in_a_step():
    arrays = random_arrays(3)
    orders = []
    for count, seed in ((3, 1), (12, 1), (3, 2)):
        sampler = sampler_of(arrays, episodes(count, 4, 2, 1), seed=seed)
        orders.append(np.concatenate([sampler.rows(step) for step in range(24 // count)]).tolist())
    assert orders[0] == orders[1] != orders[2]


def test_relations_with_too_few_sentences_are_left_out_and_counted():
    rng = np.random.default_rng(0)
    one = sentence(rng, 2, 1, 2, 1, 2)
    sentences = [sentence(rng, 2, 1, 2, 1, 2) for _ in range(9)] + [one] * 5
    relation = [0] * 3 + [2] * 2 + [3] * 4 + [4] * 5  # relation 1 has none, 4 has one sentence five times
    arrays = arrays_of(sentences, relation=relation, n_relations=5)
    sampler = sampler_of(arrays, episodes(4, 2, 2, 1))
    assert sampler.counts() == [(2, 7)]
    assert {int(arrays["relation"][row]) for step in range(9) for row in sampler.rows(step)} == {0, 3}
    with pytest.raises(
        ValueError,
        match=r"episodes need n_way 3 relations with 3 different sentences each \(k_shot 2 \+ n_query 1\): 2 of the 5 "
        "relations have as many, the largest 4; lower n_way, k_shot or n_query, or give more sentences",
    ):
        sampler_of(arrays, episodes(4, 3, 2, 1))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((0, 5, 1, 1), "episodes is 0; expected 1"),
        ((1, 0, 1, 1), "n_way is 0; expected 1"),
        ((1, 5, 0, 1), "k_shot is 0; expected 1"),
        ((1, 5, 1, -1), "n_query is -1; expected 1"),
        ((1, 10**9, 2, 2), "the number of sentences of an episode is 4000000000"),
    ],
)
def test_episodes_out_of_range(shape, message):
    with pytest.raises(ValueError, match=message):
        sampler_of(random_arrays(3), episodes(*shape))


# ---- bags


def bags_of(batch, rows):
    """The rows of each bag of a step, with the batch's numbers checked."""
    ends = np.flatnonzero(np.diff(batch["pair"], append=-1))
    np.testing.assert_array_equal(batch["pair"][ends], np.arange(len(ends)))
    return np.split(rows, ends[:-1] + 1)


def test_a_bag_is_a_pair_of_entities_and_a_relation_and_comes_once_an_epoch():
    arrays = random_arrays(3, n_pairs=9)
    keys = np.stack([arrays["head_id"], arrays["tail_id"], arrays["relation"]], 1)
    known = (keys >= 0).all(1)
    every = {tuple(key) for key in keys[known]}
    sampler = sampler_of(arrays, bags(5, 3))
    assert sampler.counts() == [(len(every), int((~known).sum()))]
    assert not known.all()
    drawn = []
    for step in range(len(every)):
        rows = sampler.rows(step)
        for bag in bags_of(sampler.batch(step), rows):
            (key,) = {tuple(keys[row]) for row in bag}
            size = int((keys == key).all(1).sum())
            assert len(bag) == min(size, 3)
            assert (np.diff(bag) > 0).all()
            drawn.append(key)
    assert len(drawn) == 5 * len(every)
    for epoch in range(5):
        assert set(drawn[epoch * len(every) : (epoch + 1) * len(every)]) == every


def test_sentences_of_a_large_bag_are_drawn_alike():
    arrays = arrays_with([[1, 2]] * 7 + [[3, 4]])
    sampler = sampler_of(arrays, bags(2, 3))
    rows = np.array([sampler.rows(step) for step in range(2000)])
    counts = np.bincount(rows.ravel(), minlength=8)
    assert counts[7] == 2000
    expected = 2000 * 3 / 7  # 35 subsets of three
    assert ((counts[:7] - expected) ** 2 / expected).sum() < 6 + 4.5 * np.sqrt(12)
    subsets = {tuple(row[row < 7]) for row in rows}
    assert len(subsets) == 35


def test_bags_depend_on_the_seed_and_not_on_their_number_in_a_step():
    arrays = random_arrays(3, n_pairs=9)
    orders = []
    for count, seed in ((3, 1), (12, 1), (3, 2)):
        sampler = sampler_of(arrays, bags(count, 2), seed=seed)
        orders.append(np.concatenate([sampler.rows(step) for step in range(24 // count)]).tolist())
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize(
    ("pairs", "options", "message"),
    [
        ([[1, -1], [-1, 2]], (4, 2), "no bag left: none of the 2 sentences knows both of its entities; give them an"),
        ([[1, 2], [2, 1], [-1, 1]], (4, 2), "no bag has two sentences: 2 sentences know both entities, and each is"),
        ([[1, 2], [1, 2]], (0, 2), "bags is 0; expected 1"),
        ([[1, 2], [1, 2]], (2, 0), "bag_size is 0; expected 1"),
        ([[1, 2], [1, 2]], (10**5, 10**5), "bag_size is 100000; expected 1"),
    ],
)
def test_bags_that_cannot_be_drawn(pairs, options, message):
    with pytest.raises(ValueError, match=message):
        sampler_of(arrays_with(pairs), bags(*options))


def test_bags_come_last():
    sampler_of(random_arrays(3), relation_pairs(4), bags(3, 2))
    with pytest.raises(ValueError, match="source 0 draws bags, which differ in size; expected it to be the last"):
        sampler_of(random_arrays(3), bags(3, 2), relation_pairs(4))


# ---- several sources


def test_sources_follow_one_another_in_a_batch():
    arrays = random_arrays(5)
    sources = [relation_pairs(5), entity_pairs(4), instances(3)]
    both = sampler_of(arrays, *sources)
    assert len(both.counts()) == 3
    for step in range(3):
        rows = both.rows(step)
        assert len(rows) == 21
        np.testing.assert_array_equal(rows[:10], sampler_of(arrays, sources[0]).rows(step))
        batch = both.batch(step)
        np.testing.assert_array_equal(batch["sample"], np.arange(21))
        np.testing.assert_array_equal(batch["relation"], arrays["relation"][rows])
        assert (batch["pair"][:10] < 0).all()
        assert (batch["pair"][10:18] >= 0).all()
        assert (batch["pair"][18:] < 0).all()
        assert len(sequences(batch)) == 21


def test_two_sources_of_one_kind_draw_apart():
    arrays = random_arrays(5)
    rows = sampler_of(arrays, instances(30), instances(30)).rows(0)
    assert (rows[:30] != rows[30:]).any()


def test_prefetch_and_steps_do_not_change_a_byte():
    arrays = random_arrays(5)
    sources = [entity_pairs(6), relation_pairs(5, distinct_relations=True), episodes(2, 4, 1, 2), bags(4, 2)]
    plain, fetching = (sampler_of(arrays, *sources, prefetch=on, mlm_probability=0.2) for on in (False, True))
    for step in (0, 1, 2, 7, 3, 4):
        want, got = plain.batch(step), fetching.batch(step)
        for name, value in want.items():
            np.testing.assert_array_equal(got[name], value, err_msg=name)
        np.testing.assert_array_equal(fetching.rows(step), plain.rows(step))


# ---- training on a step that is short


def test_a_short_step_trains_as_a_step_of_its_size(tmp_path):
    """The figures and gradients of a trainer made for that many samples; pairs refuse to be cut."""
    encoder = relpt.Encoder.from_pretrained(tiny_encoder_folder(tmp_path), num_threads=1)
    corpus = relpt.load(tiny_dataset(3, 5)).tokenize(encoder, max_length=32)

    def trained(count, kind):
        source = {"kind": "instances", "count": count, "whole_epochs": True}
        options = {"seed": 1, "max_length": 32, "prefetch": False, "mlm_probability": 0.0, "p_blank": 0.0}
        sampler = _core.Sampler(corpus.core(), encoder._tokens, sources=[source], **options)
        run = relpt.Trainer(encoder, objectives=[RC(name="x")], sentences_per_step=count, max_length=32)
        core = run._core_options(count, corpus.relations)
        core["objectives"][0] |= kind
        return _core.Trainer(**core), sampler

    short, sampler = trained(13, {})  # 13 and 2 of 15
    fitting, _ = trained(2, {})
    want, got = fitting.gradients(sampler, 1), short.gradients(sampler, 1)
    assert got == want
    assert got["sentences"] == 2
    for name in ("x.weight", "embeddings.word_embeddings.weight"):
        np.testing.assert_array_equal(short.get(0, name), fitting.get(0, name))
    pairs = {"kind": "match", "similarity": 0, "temperature": 1.0, "threshold": 0.0}
    core, sampler = trained(12, pairs)
    with pytest.raises(ValueError, match="x: the step has 3 of its 12 samples"):
        core.gradients(sampler, 1)
