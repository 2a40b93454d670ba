"""What the sampler draws: pairs, relations, input settings, blanks and masked words; and that nothing else matters."""

import ctypes
import os
import signal
import threading
import time
import warnings

import numpy as np
import pytest
from corpora import (
    CM,
    CT,
    OC,
    OM,
    OT,
    TOKENS,
    VOCAB,
    WORDS,
    Stream,
    arrays_of,
    build,
    key,
    random_arrays,
    relation_pairs,
    sentence,
    sequences,
    words_of,
)
from level1 import Batch, CorpusArrays, SamplerOptions, SourceOptions, SpanMasking, Tokens

from relpt import _core

pytestmark = pytest.mark.core

PAIR, INPUT, MLM = 2, 3, 4  # rp_purpose
RELATION, ROWS, ROUND = range(3)  # sites of PAIR


OF_THE_SOURCE = ("relation_exponent", "distinct_relations", "pairs_per_relation")


def sampler_of(arrays, tokens=TOKENS, **options):
    """A sampler of pairs of one relation."""
    options = {"seed": 42, "pairs": 64, "max_length": 32, "prefetch": False, **options}
    source = {name: options.pop(name) for name in OF_THE_SOURCE if name in options}
    sources = [relation_pairs(options.pop("pairs"), **source)]
    return _core.Sampler(_core.Corpus(**arrays), tokens, sources=sources, **options)


def pairs_of(sampler, steps):
    return np.array([sampler.rows(step).reshape(-1, 2) for step in steps])


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def assert_shares(counts, shares):
    """Chi-square within 4.5 standard deviations of its mean (a fixed seed: fails only when the draws change)."""
    counts, shares = np.asarray(counts, float), np.asarray(shares, float)
    assert counts[shares == 0].sum() == 0
    counts, shares = counts[shares > 0], shares[shares > 0] / shares.sum()
    expected, freedom = counts.sum() * shares, len(shares) - 1
    assert ((counts - expected) ** 2 / expected).sum() < freedom + 4.5 * np.sqrt(2 * freedom) + 2


# ---- the oracle: one step in plain Python


def oracle_relations(arrays, seed, step, pairs, exponent, distinct):
    count = np.bincount(arrays["relation"], minlength=arrays["n_relations"])
    texts = [
        len({tuple(words_of(arrays, row)) for row in np.flatnonzero(arrays["relation"] == r)})
        for r in range(len(count))
    ]
    drawable = [r for r in range(len(count)) if texts[r] >= 2]
    weight = (count[drawable] / count[drawable].max()) ** exponent
    if not distinct:
        cumulative = np.cumsum(weight)
        draws = [Stream(key(seed, PAIR, RELATION), step, i, 0).unit() * cumulative[-1] for i in range(pairs)]
        return [drawable[np.searchsorted(cumulative, at, side="right")] for at in draws]
    relations = []
    for r in range(-(-pairs // len(drawable))):
        u = np.array([Stream(key(seed, PAIR, ROUND), step, r, e).unit() for e in range(len(drawable))])
        relations += [drawable[e] for e in np.argsort(-np.log(1 - u) / weight, kind="stable")]
    return relations[:pairs]


def differ(arrays, a, b, pairs_too):
    if words_of(arrays, a) == words_of(arrays, b):
        return False
    ids = [(arrays["head_id"][row], arrays["tail_id"][row]) for row in (a, b)]
    return not pairs_too or ids[0] != ids[1] or -1 in ids[0]


def oracle_rows(arrays, seed, step, pair, relation):
    rows = np.flatnonzero(arrays["relation"] == relation).tolist()
    first_pair = (arrays["head_id"][rows[0]], arrays["tail_id"][rows[0]])
    pairs_differ = -1 in first_pair or any(
        (arrays["head_id"][row], arrays["tail_id"][row]) != first_pair for row in rows
    )
    stream = Stream(key(seed, PAIR, ROWS), step, pair, 0)
    first = rows[stream.below(len(rows))]
    for _ in range(16):
        second = rows[stream.below(len(rows))]
        if differ(arrays, first, second, pairs_differ):
            return first, second
    start = stream.below(len(rows))
    around = rows[start:] + rows[:start]
    for wanted in (pairs_differ, False):
        for second in around:
            if differ(arrays, first, second, wanted):
                return first, second
    raise AssertionError("a relation with two texts leaves no row without a partner")


def oracle_sample(arrays, seed, step, number, row, options):
    stream = Stream(key(seed, INPUT, 0), step, number, 0)
    at = stream.unit()
    setting = int(np.searchsorted(np.cumsum(options["input_weight"]), at, side="right"))
    blanks = (stream.unit() < options["p_blank"], stream.unit() < options["p_blank"])
    ids = build(arrays, row, setting, options["max_length"], blanks)[0]
    masked, labels = list(ids), {}
    for pos, token in enumerate(ids):
        if TOKENS["special"][token]:
            continue
        stream = Stream(key(seed, MLM, 0), step, number, pos)
        if stream.unit() >= options["mlm_probability"]:
            continue
        labels[pos] = token
        fate = stream.below(10)
        if fate < 8:
            masked[pos] = TOKENS["mask"]
        while fate == 8:
            masked[pos] = stream.below(VOCAB)
            if not TOKENS["special"][masked[pos]]:
                break
    return masked, labels


@pytest.mark.parametrize("distinct", [False, True])
@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_a_step_equals_the_oracle(distinct, exponent):
    arrays = random_arrays(7)
    options = {"mlm_probability": 0.3, "p_blank": 0.6, "max_length": 20, "input_weight": (0.4, 0.2, 0.2, 0.1, 0.1)}
    seed, pairs = 2**64 - 5, 20
    drawn = {"relation_exponent": exponent, "distinct_relations": distinct}
    sampler = sampler_of(arrays, seed=seed, pairs=pairs, **options, **drawn)
    for step in (0, 3, 2**32 - 1):
        batch, numbers = sampler.batch(step), iter(range(2 * pairs))
        relations = oracle_relations(arrays, seed, step, pairs, exponent, distinct)
        np.testing.assert_array_equal(batch["relation"], np.repeat(relations, 2))
        found, labels = sequences(batch), dict(zip(batch["mlm_row"].tolist(), batch["mlm_label"].tolist(), strict=True))
        wanted_labels = {}
        for pair, relation in enumerate(relations):
            rows = oracle_rows(arrays, seed, step, pair, relation)
            assert tuple(sampler.rows(step)[2 * pair : 2 * pair + 2]) == rows
            for row in rows:
                number = next(numbers)
                ids, masked = oracle_sample(arrays, seed, step, number, row, options)
                assert found[number] == ids
                wanted_labels |= {int(batch["cu_seqlens"][number]) + pos: label for pos, label in masked.items()}
        assert labels == wanted_labels
        assert list(labels) == sorted(labels)


# ---- pairs


def test_pairs_are_two_different_sentences_of_one_relation():
    arrays = random_arrays(11, n_pairs=4)
    sampler = sampler_of(arrays, relation_exponent=0)
    relation = arrays["relation"]
    for first, second in pairs_of(sampler, range(20)).reshape(-1, 2):
        assert relation[first] == relation[second]
        rows = np.flatnonzero(relation == relation[first])
        possible = any(differ(arrays, first, row, True) for row in rows)
        assert differ(arrays, first, second, possible)


@pytest.mark.parametrize(("texts", "entities"), [(2, 2), (3, 1), (8, 2), (40, 1), (40, 2)])
def test_pairs_equal_the_oracle_where_partners_are_rare(texts, entities):
    """Few texts and entity pairs, most rows alike: tries run out, and some first rows have only one kind of partner."""
    rng = np.random.default_rng(texts)
    choice = [sentence(rng, 2, 1, 1, 1, 2) for _ in range(texts)]
    for low in (-1, 0):
        often = rng.random(60) < 0.85
        text = np.where(often, 0, rng.integers(0, texts, 60))
        pairs = np.where((rng.random(60) < 0.85)[:, None], low, rng.integers(low, low + entities, (60, 2)))
        relation = rng.integers(0, 3, 60)
        arrays = arrays_of([choice[i] for i in text], relation=relation, n_relations=3, pairs=pairs)
        sampler = sampler_of(arrays)
        for step in range(6):
            relations = oracle_relations(arrays, 42, step, 64, 1.0, False)
            wanted = [oracle_rows(arrays, 42, step, pair, relation) for pair, relation in enumerate(relations)]
            assert sampler.rows(step).reshape(-1, 2).tolist() == [list(rows) for rows in wanted]


def test_a_rare_partner_of_another_entity_pair_is_found():
    rng = np.random.default_rng(0)
    sentences = [sentence(rng, 3, 1, 2, 1, 3) for _ in range(2000)]
    pairs = np.tile([[1, 2]], (2000, 1))
    pairs[1234] = [3, 4]
    sampler = sampler_of(arrays_of(sentences, pairs=pairs))
    for first, second in pairs_of(sampler, range(5)).reshape(-1, 2):
        assert (first == 1234) != (second == 1234)


def test_one_entity_pair_alone_still_gives_pairs():
    rng = np.random.default_rng(0)
    sentences = [sentence(rng, 3, 1, 2, 1, 3) for _ in range(30)]
    sampler = sampler_of(arrays_of(sentences, pairs=np.tile([[1, 2]], (30, 1))))
    drawn = pairs_of(sampler, range(40)).reshape(-1, 2)
    assert (drawn[:, 0] != drawn[:, 1]).all()
    assert_shares(np.bincount(drawn[:, 1], minlength=30), np.ones(30))


def test_the_one_other_text_is_found_among_many_equal_ones():
    rng = np.random.default_rng(0)
    common, rare = sentence(rng, 3, 1, 2, 1, 3), sentence(rng, 3, 1, 2, 1, 3)
    sampler = sampler_of(arrays_of([common] * 900 + [rare] + [common] * 99))
    for first, second in pairs_of(sampler, range(5)).reshape(-1, 2):
        assert (first == 900) != (second == 900)


def test_rows_are_uniform_within_a_relation():
    rng = np.random.default_rng(0)
    sampler = sampler_of(arrays_of([sentence(rng, 3, 1, 2, 1, 3) for _ in range(12)]))
    drawn = pairs_of(sampler, range(100)).reshape(-1, 2)
    assert_shares(np.bincount(drawn[:, 0], minlength=12), np.ones(12))
    joint = np.zeros((12, 12))
    np.add.at(joint, (drawn[:, 0], drawn[:, 1]), 1)
    assert_shares(joint.ravel(), (1 - np.eye(12)).ravel())


def test_relations_with_one_text_are_left_out_and_counted():
    rng = np.random.default_rng(0)
    a, b = sentence(rng, 3, 1, 2, 1, 3), sentence(rng, 3, 1, 2, 1, 3)
    arrays = arrays_of([a, a, a, b, a, b, b], relation=[0, 0, 0, 1, 2, 2, 2], n_relations=5)
    sampler = sampler_of(arrays)
    assert sampler.counts() == [(1, 4)]
    assert set(sampler.batch(0)["relation"]) == {2}


# ---- relations


def relation_counts(sampler, steps, n):
    return np.bincount(np.concatenate([sampler.batch(step)["relation"][::2] for step in range(steps)]), minlength=n)


@pytest.mark.parametrize("exponent", [0.0, 0.3, 0.5, 1.0, 2.0])
def test_relations_come_in_proportion_to_a_power_of_their_count(exponent):
    arrays = random_arrays(13, n=1000, n_relations=12)
    sampler = sampler_of(arrays, relation_exponent=exponent, pairs=500, mlm_probability=0)
    count = np.bincount(arrays["relation"], minlength=12)
    assert_shares(relation_counts(sampler, 40, 12), count.astype(float) ** exponent)


def few_relations(counts):
    rng = np.random.default_rng(0)
    relation = np.repeat(np.arange(len(counts)), counts)
    return arrays_of([sentence(rng, 2, 1, 1, 1, 2) for _ in relation], relation=relation, n_relations=len(counts))


def test_distinct_relations_come_in_rounds():
    arrays = few_relations([2, 30, 4, 5, 60, 7, 8])
    sampler = sampler_of(arrays, distinct_relations=True, pairs=17)
    orders = set()
    for step in range(30):
        relations = sampler.batch(step)["relation"][::2].tolist()
        assert sorted(relations[:7]) == sorted(relations[7:14]) == list(range(7))
        assert len(set(relations[14:])) == 3
        orders |= {tuple(relations[:7]), tuple(relations[7:14])}
    assert len(orders) > 50


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_distinct_relations_follow_successive_sampling_without_replacement(exponent):
    counts = [3, 6, 12, 24]
    weight = np.array(counts, float) ** exponent
    weight /= weight.sum()
    sampler = sampler_of(few_relations(counts), distinct_relations=True, relation_exponent=exponent, pairs=2)
    drawn = np.zeros((4, 4))
    for step in range(6000):
        first, second = sampler.batch(step)["relation"][::2]
        drawn[first, second] += 1
    wanted = weight[:, None] * weight[None, :] / (1 - weight)[:, None] * (1 - np.eye(4))
    assert_shares(drawn.ravel(), wanted.ravel())


# ---- what a batch depends on


def test_a_batch_is_a_function_of_seed_and_step():
    arrays = random_arrays(17)
    for distinct in (False, True):
        plain, ahead = (sampler_of(arrays, distinct_relations=distinct, prefetch=p) for p in (False, True))
        reference = [plain.batch(step) for step in range(12)]
        for step in (0, 1, 2, 3, 3, 2, 9, 10, 0, 11, 11, 5, 6, 7, 8, 2, 1, 0, 4):
            assert_same(ahead.batch(step), reference[step])
            assert_same(plain.batch(step), reference[step])
        assert any((reference[0]["ids"][:20] != other["ids"][:20]).any() for other in reference[1:])
        other_seed = sampler_of(arrays, distinct_relations=distinct, seed=43).batch(0)
        assert (other_seed["relation"] != reference[0]["relation"]).any()


def test_pairs_do_not_depend_on_how_many_there_are():
    arrays = random_arrays(17)
    for distinct in (False, True):
        few, many = (sampler_of(arrays, distinct_relations=distinct, pairs=pairs).batch(3) for pairs in (10, 50))
        assert sequences(few) == sequences(many)[:20]
        np.testing.assert_array_equal(few["mlm_label"], many["mlm_label"][: len(few["mlm_label"])])


def test_many_samplers_prefetch_side_by_side():
    arrays = random_arrays(19)
    corpus = _core.Corpus(**arrays)
    samplers = [
        _core.Sampler(
            corpus, TOKENS, sources=[relation_pairs(16, distinct_relations=s % 2 == 1)], seed=s, max_length=32
        )
        for s in range(8)
    ]
    for step in range(20):
        for seed, sampler in enumerate(samplers):
            plain = sampler_of(arrays, seed=seed, pairs=16, distinct_relations=seed % 2 == 1)
            assert_same(sampler.batch(step), plain.batch(step))


def test_samples_are_numbered_and_batches_are_fresh_arrays():
    sampler = sampler_of(random_arrays(17), prefetch=True)
    first = sampler.batch(0)
    kept = {name: np.copy(value) for name, value in first.items()}
    np.testing.assert_array_equal(first["sample"], np.arange(128))
    for step in range(1, 6):
        sampler.batch(step)
    assert_same(first, kept)


@pytest.mark.parametrize("prefetch", [False, True])
def test_the_cores_batch_is_valid_until_the_second_next_call(prefetch):
    """Below the binding, which copies: the worker must not write into what the caller still reads."""
    core = ctypes.CDLL(_core.__file__)
    core.rp_sampler_batch.argtypes = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
    arrays, tokens = CorpusArrays.of(random_arrays(17)), Tokens.of(TOKENS)
    sources = (SourceOptions * 4)(SourceOptions(0, False, 64, 1, False, 1, 0, 0))
    mix, spans = (ctypes.c_double * 5)(1, 0, 0, 0, 0), SpanMasking()
    options = SamplerOptions(42, 32, 0.7, False, 0.15, spans, 0, mix, prefetch, 1, sources)
    corpus, sampler = ctypes.c_void_p(), ctypes.c_void_p()
    assert core.rp_corpus_new(ctypes.byref(corpus), ctypes.byref(arrays)) == 0
    assert core.rp_sampler_new(ctypes.byref(sampler), corpus, ctypes.byref(tokens), None, ctypes.byref(options)) == 0
    try:
        batches = [ctypes.POINTER(Batch)() for _ in range(9)]
        values = []
        for step, batch in enumerate(batches):
            assert core.rp_sampler_batch(sampler, step, ctypes.byref(batch)) == 0
            values.append(batch.contents.dict())
            time.sleep(0.03)  # the worker may go on to the next step
            for earlier in range(max(step - 1, 0), step + 1):
                assert batches[earlier].contents.dict() == values[earlier]
    finally:
        core.rp_sampler_free(sampler)
        core.rp_corpus_free(corpus)


def test_the_sampler_keeps_what_it_borrows():
    arrays = random_arrays(17)
    wanted = sampler_of(arrays).batch(4)
    tokens = {**TOKENS, "special": TOKENS["special"].copy()}
    sampler = _core.Sampler(
        _core.Corpus(**{name: np.copy(a) if isinstance(a, np.ndarray) else a for name, a in arrays.items()}),
        tokens,
        sources=[relation_pairs(64)],
        seed=42,
        max_length=32,
    )
    del tokens
    waste = [np.full(5000, 7, np.int32) for _ in range(200)]
    assert_same(sampler.batch(4), wanted)
    assert len(waste) == 200


# ---- input settings, blanks


def settings_of(arrays, batch, sampler, step, max_length):
    """(setting, head blanked, tail blanked) of each sample, by trying all forms; needs mlm_probability=0."""
    found = []
    for row, ids in zip(sampler.rows(step), sequences(batch), strict=True):
        forms = [(CM, h, t) for h in (0, 1) for t in (0, 1)] + [(OM, h, t) for h in (0, 1) for t in (0, 1)]
        forms += [(CT, 0, 0), (OC, 0, 0), (OT, 0, 0)]
        fit = [form for form in forms if build(arrays, row, form[0], max_length, form[1:])[0] == ids]
        assert len(fit) == 1
        found.append(fit[0])
    return np.array(found)


def with_context(seed, n=200):
    """Sentences with words on every side, so that no two forms of one are equal."""
    rng = np.random.default_rng(seed)
    sentences = [sentence(rng, *rng.integers(1, 6, 5), tail_first=bool(i % 2)) for i in range(n)]
    names = [[30, 31, 32, 33, 34, 35, 36], [40, 41, 42, 43, 44, 45, 46]]
    return arrays_of(
        sentences, relation=np.arange(n) % 4, n_relations=4, types=np.tile([[0, 1]], (n, 1)), type_names=names
    )


def test_settings_and_blanks_come_at_their_rates():
    arrays, weights, p = with_context(0), (0.35, 0.1, 0.15, 0.3, 0.1), 0.7
    sampler = sampler_of(arrays, input_weight=weights, p_blank=p, mlm_probability=0, pairs=400, max_length=64)
    drawn = np.concatenate([settings_of(arrays, sampler.batch(step), sampler, step, 64) for step in range(5)])
    assert_shares(np.bincount(drawn[:, 0], minlength=5), weights)
    for setting in (CM, OM):
        both = drawn[drawn[:, 0] == setting][:, 1:] @ [2, 1]
        assert_shares(np.bincount(both, minlength=4), [(1 - p) ** 2, (1 - p) * p, p * (1 - p), p * p])
    assert (
        len({tuple(map(tuple, drawn[step * 800 : step * 800 + 800])) for step in range(5)}) == 5
    )  # drawn anew each step


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_blanks_never_and_always(p):
    sampler = sampler_of(with_context(1), p_blank=p, mlm_probability=0)
    batch = sampler.batch(0)
    for name in ("head", "tail"):
        assert (batch["ids"][batch[name] + 1] == TOKENS["blank"]).mean() == p


@pytest.mark.parametrize("setting", [CM, CT, OC, OM, OT])
def test_one_setting_alone(setting):
    arrays = with_context(2)
    weights = [float(s == setting) for s in range(5)]
    sampler = sampler_of(arrays, input_weight=weights, p_blank=0, mlm_probability=0, max_length=24)
    assert_same(sampler.batch(0), _core.build_batch(_core.Corpus(**arrays), TOKENS, sampler.rows(0), setting, 24))


# ---- masked words


def unmasked(batch):
    ids = batch["ids"].copy()
    ids[batch["mlm_row"]] = batch["mlm_label"]
    return ids


@pytest.mark.parametrize("probability", [0.0, 0.15, 1.0])
def test_masked_words(probability):
    arrays = with_context(3)
    options = {"p_blank": 0.5, "pairs": 1500, "max_length": 64}
    clean = sampler_of(arrays, mlm_probability=0, **options).batch(0)
    batch = sampler_of(arrays, mlm_probability=probability, **options).batch(0)
    assert len(clean["mlm_row"]) == 0
    np.testing.assert_array_equal(unmasked(batch), clean["ids"])
    words = clean["ids"] >= WORDS
    chosen = np.zeros(len(words), bool)
    chosen[batch["mlm_row"]] = True
    assert (np.diff(batch["mlm_row"]) > 0).all()
    assert not chosen[~words].any()
    if probability == 1:
        assert chosen[words].all()
    elif probability > 0:
        assert_shares([chosen.sum(), (words & ~chosen).sum()], [probability, 1 - probability])
        other = [batch["ids"][batch["mlm_row"]] == TOKENS["mask"], batch["ids"][batch["mlm_row"]] == batch["mlm_label"]]
        same = 0.1 + 0.1 / (VOCAB - WORDS)  # a random word may be the word itself
        assert_shares([other[0].sum(), other[1].sum(), (~other[0] & ~other[1]).sum()], [0.8, same, 0.2 - same])
        replaced = batch["ids"][batch["mlm_row"]][~other[0] & ~other[1]]
        assert (replaced >= WORDS).all()
    np.testing.assert_array_equal(batch["ids"][~chosen], clean["ids"][~chosen])


def test_random_words_are_uniform_over_the_words():
    sampler = sampler_of(with_context(3), mlm_probability=1, pairs=3000, p_blank=0, max_length=64)
    drawn = []
    for step in range(4):
        batch = sampler.batch(step)
        now = batch["ids"][batch["mlm_row"]]
        drawn.append(now[(now != TOKENS["mask"]) & (now != batch["mlm_label"])])
    assert_shares(np.bincount(np.concatenate(drawn), minlength=VOCAB)[WORDS:], np.ones(VOCAB - WORDS))


def test_a_vocabulary_of_specials_keeps_the_word():
    tokens = {**TOKENS, "special": np.ones(VOCAB, np.uint8)}
    tokens["special"][150] = 0
    arrays = arrays_of([([150, 150, 150, 150, 20 + i], [0, 1, 1, 2]) for i in range(3)])
    batch = sampler_of(arrays, tokens, mlm_probability=1, p_blank=0).batch(0)
    assert set(batch["mlm_label"]) == {150}
    assert set(batch["ids"][batch["mlm_row"]]) == {TOKENS["mask"], 150}


# ---- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": 0}, "pairs is 0; expected 1 .. "),
        ({"pairs": 2**40}, "pairs is 1099511627776"),
        ({"pairs": 2**29, "max_length": 512}, "take fewer pairs a step or a smaller max_length"),
        ({"max_length": 15}, "max_length is 15; expected 16 .. 65535"),
        ({"relation_exponent": -0.1}, "relation_exponent is -0.1; expected 0 .. 4"),
        ({"relation_exponent": float("nan")}, "relation_exponent is -?nan"),
        ({"p_blank": 1.1}, "p_blank is 1.1; expected 0 .. 1"),
        ({"mlm_probability": -1}, "mlm_probability is -1; expected 0 .. 1"),
        ({"input_weight": (0.5, 0, 0, 0, 0.4)}, "input_weight sums to 0.9; expected 1"),
        ({"input_weight": (1.5, 0, -0.5, 0, 0)}, r"input_weight\[0\] \(C\+M\) is 1.5"),
        ({"input_weight": (0.5, 0, 0.5)}, "input_weight has 3 numbers; expected 5"),
        ({"seed": -1}, r"seed is -1; expected 0 .. 2\*\*64 - 1"),
        ({"seed": 2**64}, r"seed is 18446744073709551616; expected"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        sampler_of(random_arrays(1), **options)


def test_other_refusals():
    arrays = random_arrays(1)
    with pytest.raises(TypeError, match="sources, seed and max_length"):
        _core.Sampler(_core.Corpus(**arrays), TOKENS, seed=1, sources=[relation_pairs(2)])
    with pytest.raises(TypeError, match="corpus: expected a"):
        _core.Sampler(arrays, TOKENS, sources=[relation_pairs(2)], seed=1, max_length=32)
    with pytest.raises(ValueError, match='there is no "count" in'):
        _core.Sampler(_core.Corpus(**arrays), TOKENS, sources=[{"kind": "relations"}], seed=1, max_length=32)
    with pytest.raises(ValueError, match="kind is 'words', which there is not"):
        _core.Sampler(_core.Corpus(**arrays), TOKENS, sources=[{"kind": "words"}], seed=1, max_length=32)
    with pytest.raises(ValueError, match=r"the number of sources is 0; expected 1 \.\. 4"):
        _core.Sampler(_core.Corpus(**arrays), TOKENS, sources=[], seed=1, max_length=32)
    with pytest.raises(ValueError, match="special has 190 flags; expected at least the corpus's vocab_size, 200"):
        sampler_of(arrays, {**TOKENS, "special": TOKENS["special"][:190].copy()})
    sampler = sampler_of(arrays)
    for step in (-1, 2**32):
        with pytest.raises(ValueError, match=f"step is {step}; expected 0 .. 4294967295"):
            sampler.batch(step)
        with pytest.raises(ValueError, match="step is"):
            sampler.rows(step)


@pytest.mark.parametrize("sentences", [0, 1, 3])
def test_no_pair_left(sentences):
    rng = np.random.default_rng(0)
    one = sentence(rng, 1, 1, 1, 1, 1)
    with pytest.raises(ValueError, match="no pair left: none of the 1 relations has two different sentences"):
        sampler_of(arrays_of([one] * sentences))


def test_settings_with_types_need_types():
    arrays = with_context(0)
    arrays["tail_type"][17] = -1
    for weights in ((0.5, 0.5, 0, 0, 0), (0.9, 0, 0, 0, 0.1)):
        with pytest.raises(
            ValueError, match=r"row 17: tail_type is -1 \(unknown\), and input_weight gives C\+T or OnlyT"
        ):
            sampler_of(arrays, input_weight=weights)
    sampler_of(arrays, input_weight=(0.5, 0, 0.5, 0, 0)).batch(0)


# ---- threads and processes


def test_a_second_thread_is_refused_while_the_first_is_served():
    sampler = sampler_of(random_arrays(1), pairs=100_000, max_length=64)
    outcomes = []

    def call(start):
        start.wait()
        try:
            outcomes.append(len(sampler.batch(0)["sample"]))
        except RuntimeError as error:
            outcomes.append(str(error))

    for _ in range(20):
        start = threading.Barrier(2)
        threads = [threading.Thread(target=call, args=(start,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if any(isinstance(outcome, str) for outcome in outcomes):
            break
    assert any(str(outcome).startswith("busy: another thread is using this Sampler") for outcome in outcomes)
    assert set(map(type, outcomes)) == {int, str}
    assert len(sampler.batch(1)["sample"]) == 200_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("prefetch", [False, True])
def test_a_forked_child_is_refused(prefetch):
    sampler = sampler_of(random_arrays(1), prefetch=prefetch)
    sampler.batch(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about threads and fork: the very point
        child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(20)  # a deadlock ends the child
            sampler.batch(1)
        except RuntimeError as error:
            code = 0 if "forked child" in str(error) else 2
            del sampler  # must not wait for a worker that is not there
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    sampler.batch(1)
