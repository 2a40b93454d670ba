"""Masked spans of entity and relation words: which they are, what stands in their place, and that nothing else does."""

import numpy as np
import pytest
from corpora import (
    CM,
    HEAD,
    OC,
    OM,
    TAIL,
    TOKENS,
    VOCAB,
    WORDS,
    Stream,
    arrays_of,
    key,
    random_arrays,
    relation_pairs,
    sentence,
    sequences,
    with_form,
)

from relpt import _core

pytestmark = pytest.mark.core

SPANS = {"mention_probability": 0.5, "relation_probability": 0.7, "length_p": 0.3, "longest": 5}
ALWAYS = {**SPANS, "mention_probability": 1.0, "relation_probability": 1.0, "longest": 90}
CONTINUES = (np.arange(VOCAB) % 3 == 0).astype(np.uint8)  # every third piece goes on with a word
SPARSE = {**TOKENS, "special": TOKENS["special"] | (np.arange(VOCAB) % 7 == 0)}  # with specials in the text
FORMS = {
    "plain": TOKENS,
    "words of pieces": {**TOKENS, "continues": CONTINUES},
    "specials in the text": {**SPARSE, "continues": CONTINUES},
    "prompt": {**with_form(prompt=[41, HEAD, TAIL, 42, TOKENS["mask"], TAIL, 43]), "continues": CONTINUES},
    "typed, order of the text": with_form(types=[[[50 + t] * (1 + t)] * 4 for t in range(4)], text_order=True),
}
MIX = (0.4, 0.2, 0.1, 0.2, 0.1)


def sampler_of(arrays, tokens=TOKENS, *, pairs=60, spans=SPANS, seed=5, **options):
    options = {"p_blank": 0.3, "max_length": 48, "prefetch": False, "mlm_probability": 0, **options}
    corpus = _core.Corpus(**arrays)
    return _core.Sampler(corpus, tokens, sources=[relation_pairs(pairs)], seed=seed, spans=spans, **options)


def masked_by_hand(batch, tokens, spans, seed, step):
    """ids, and of each masked token its row: label, left, right and place; from a batch without masks."""
    ids, found = batch["ids"].tolist(), {}
    special, continues = tokens["special"], tokens.get("continues", np.zeros(VOCAB))
    for s, number in enumerate(batch["sample"].tolist()):
        bounds = {side: (int(batch[f"{side}_first"][s]), int(batch[f"{side}_end"][s])) for side in ("head", "tail")}
        drawn = []
        for row, side in enumerate(("head", "tail")):
            stream = Stream(key(seed, 4, 1), step, number, row)
            if stream.unit() < spans["mention_probability"]:
                drawn.append((stream, *bounds[side]))
        before, behind = sorted(("head", "tail"), key=lambda side: bounds[side])
        start, end = bounds[before][1], int(batch[behind][s])
        start = min(start + (int(bounds[before][0] - batch[before][s])), end)  # the markers of a mention are alike here
        words = [t for t in range(start, end) if t == start or not continues[ids[t]]] + [end]
        stream = Stream(key(seed, 4, 1), step, number, 2)
        if len(words) > 1 and stream.unit() < spans["relation_probability"]:
            shares = (1 - spans["length_p"]) ** np.arange(min(spans["longest"], len(words) - 1))
            at, length = stream.unit() * shares.sum(), 1
            while length < len(shares) and at >= shares[length - 1]:
                at -= shares[length - 1]
                length += 1
            first = stream.below(len(words) - length)
            drawn.append((stream, words[first], words[first + length]))
        for stream, first, last in drawn:
            fate = stream.below(10)
            for t in range(first, last):
                if special[ids[t]]:
                    continue
                found[t] = (ids[t], first - 1, last, min(t - first, 63))
                if fate < 8:
                    ids[t] = tokens["mask"]
                while fate == 8:
                    ids[t] = stream.below(VOCAB)
                    if not special[ids[t]]:
                        break
        t = int(batch["cu_seqlens"][s + 1])
        for piece in [*tokens.get("prompt", np.empty(0, np.int32)).tolist(), tokens["sep"]][::-1]:
            if "prompt" not in tokens:
                break
            first, last = bounds[{HEAD: "head", TAIL: "tail"}[piece]] if piece < 0 else (0, 1)
            t -= last - first
            if piece < 0:
                ids[t : t + last - first] = ids[first:last]
    return ids, dict(sorted(found.items()))


@pytest.mark.parametrize("tokens", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("spans", [SPANS, ALWAYS], ids=["some", "always"])
def test_spans_equal_the_oracle(tokens, spans):
    arrays = random_arrays(3)
    for step in (0, 7):
        plain = sampler_of(arrays, tokens, spans=None, input_weight=MIX).batch(step)
        batch = sampler_of(arrays, tokens, spans=spans, input_weight=MIX).batch(step)
        ids, found = masked_by_hand(plain, tokens, spans, 5, step)
        assert batch["ids"].tolist() == ids
        columns = [batch[name].tolist() for name in ("mlm_label", "span_left", "span_right", "span_place")]
        assert dict(zip(batch["mlm_row"].tolist(), zip(*columns, strict=True), strict=True)) == found
        assert batch["mlm_row"].tolist() == list(found)
        assert len(found) > 100
        assert not set(found) & {row for _, left, right, _ in found.values() for row in (left, right)}


def context(n=400, middle=12, right=3):
    rng = np.random.default_rng(0)
    return arrays_of([sentence(rng, 3, 2, middle, 3, right) for _ in range(n)])


def spans_of(batch):
    """(left, right) of the batch's spans, in order."""
    return sorted(set(zip(batch["span_left"].tolist(), batch["span_right"].tolist(), strict=True)))


def test_shares_of_mentions_lengths_and_fates():
    lengths, fates, mentions, samples = np.zeros(13), np.zeros(3), 0, 0
    sampler = sampler_of(context(), pairs=1000, p_blank=0)
    for step in range(6):
        batch = sampler.batch(step)
        starts = {*batch["head_first"].tolist(), *batch["tail_first"].tolist()}
        labels = dict(zip(batch["mlm_row"].tolist(), batch["mlm_label"].tolist(), strict=True))
        samples += len(batch["sample"])
        for left, right in spans_of(batch):
            if left + 1 in starts:
                mentions += 1
            else:
                lengths[right - left - 1] += 1
            rows = range(left + 1, right)
            assert all(row in labels for row in rows)
            now = batch["ids"][left + 1 : right]
            kinds = [(now == TOKENS["mask"]).all(), now.tolist() == [labels[row] for row in rows], (now >= WORDS).all()]
            fates[kinds.index(True)] += 1
    assert mentions / (2 * samples) == pytest.approx(0.5, abs=0.02)
    assert lengths.sum() / samples == pytest.approx(0.7, abs=0.02)
    wanted = 0.7 ** np.arange(5) / (0.7 ** np.arange(5)).sum()
    np.testing.assert_allclose(lengths[1:6] / lengths.sum(), wanted, atol=0.02)
    assert lengths[6:].sum() == 0
    np.testing.assert_allclose(fates / fates.sum(), [0.8, 0.1, 0.1], atol=0.01)


def test_lengths_as_published_have_their_mean():
    """3.8 words (Joshi et al. 2020, section 3.1)."""
    spans = {"mention_probability": 0.0, "relation_probability": 1.0, "length_p": 0.2, "longest": 10}
    batch = sampler_of(context(middle=14), pairs=3000, spans=spans, p_blank=0).batch(0)
    lengths = np.array([right - left - 1 for left, right in spans_of(batch)])
    assert len(lengths) == 6000
    assert lengths.max() == 10
    assert lengths.mean() == pytest.approx(3.8, abs=0.1)


def test_what_is_masked_in_each_setting():
    """Blanks, subject and object are no words; types are; without context there are no relation words."""
    arrays = random_arrays(4)
    for setting, blank in ((CM, 1.0), (OC, 0.0), (OM, 0.0), (1, 0.0), (4, 0.0)):
        weights = [float(setting == i) for i in range(5)]
        batch = sampler_of(arrays, spans=ALWAYS, input_weight=weights, p_blank=blank).batch(0)
        inside = np.zeros(len(batch["ids"]), bool)
        for side in ("head", "tail"):
            for first, end in zip(batch[f"{side}_first"], batch[f"{side}_end"], strict=True):
                inside[first:end] = True
        masked = np.zeros(len(inside), bool)
        masked[batch["mlm_row"]] = True
        assert masked[inside].all() == (setting != OC and not blank)
        assert masked[inside].any() == masked[inside].all()
        assert masked[~inside].any() == (setting in (CM, 1, OC))
        assert all(ids[0] == TOKENS["cls"] and ids[-1] == TOKENS["sep"] for ids in sequences(batch))


def test_masks_are_a_function_of_seed_step_and_sample():
    arrays, options = random_arrays(6), {"input_weight": MIX}
    batch = sampler_of(arrays, **options).batch(3)
    for other in (sampler_of(arrays, prefetch=True, **options), sampler_of(arrays, **options)):
        again = other.batch(3)
        assert all(np.array_equal(again[name], batch[name]) for name in batch)
    fewer = sampler_of(arrays, pairs=20, **options).batch(3)
    assert sequences(fewer) == sequences(batch)[:40]
    assert not np.array_equal(sampler_of(arrays, **options).batch(4)["ids"], batch["ids"])


def test_words_are_spans_of_their_own():
    batch = sampler_of(random_arrays(6), spans=None, mlm_probability=0.3).batch(0)
    np.testing.assert_array_equal(batch["span_left"], batch["mlm_row"] - 1)
    np.testing.assert_array_equal(batch["span_right"], batch["mlm_row"] + 1)
    assert not batch["span_place"].any()


@pytest.mark.parametrize(
    ("spans", "options", "message"),
    [
        ({"mention_probability": 1.5}, {}, r"mention_probability is 1.5; expected 0 \.\. 1"),
        ({"relation_probability": -1.0}, {}, "relation_probability is -1; expected 0"),
        ({"length_p": 0.0}, {}, "length_p is 0; expected above 0, at most 1"),
        ({"longest": 0}, {}, r"longest is 0; expected 1 \.\. 65535 words"),
        ({}, {"mlm_probability": 0.1}, "mlm_probability is 0.1, and spans are masked too; expected one of the two"),
    ],
)
def test_options_out_of_range(spans, options, message):
    with pytest.raises(ValueError, match=message):
        sampler_of(random_arrays(6), spans={**SPANS, **spans}, **options)


def test_flags_of_another_vocabulary():
    with pytest.raises(ValueError, match="continues: expected"):
        sampler_of(random_arrays(6), {**TOKENS, "continues": CONTINUES[:-1]})
    bare = {name: TOKENS[name] for name in ("mask", "blank", "subject", "object", "special")} | {"bare": 1}
    with pytest.raises(ValueError, match="spans are masked between markers, and these sequences have none; mask words"):
        sampler_of(random_arrays(6), bare)
