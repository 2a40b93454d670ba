"""Corpus checks, the five input settings, the window, and slices of a batch."""

import ctypes

import numpy as np
import pytest
from corpora import (
    CM,
    CT,
    HEAD,
    OC,
    OM,
    OT,
    TAIL,
    TOKENS,
    VOCAB,
    arrays_of,
    build,
    markers_of,
    parts_of,
    random_arrays,
    relation_pairs,
    sentence,
    sequences,
    with_form,
)
from level1 import Batch

from relpt import _core

pytestmark = pytest.mark.core

SETTINGS = {"C+M": CM, "C+T": CT, "OnlyC": OC, "OnlyM": OM, "OnlyT": OT}


def build_core(arrays, setting, max_length, rows=None, blanks=None, tokens=TOKENS):
    rows = np.arange(len(arrays["relation"])) if rows is None else np.asarray(rows)
    return _core.build_batch(_core.Corpus(**arrays), tokens, rows.astype(np.int64), setting, max_length, blanks)


def check_against_oracle(arrays, setting, max_length, blanks=None, tokens=TOKENS):
    batch = build_core(arrays, setting, max_length, blanks=blanks, tokens=tokens)
    n = len(arrays["relation"])
    blanks = np.zeros((n, 2), np.uint8) if blanks is None else blanks
    expected = [build(arrays, row, setting, max_length, blanks[row], tokens) for row in range(n)]
    assert sequences(batch) == [ids for ids, *_ in expected]
    starts = batch["cu_seqlens"][:-1]
    np.testing.assert_array_equal(batch["head"] - starts, [head for _, head, _, _ in expected])
    np.testing.assert_array_equal(batch["tail"] - starts, [tail for _, _, tail, _ in expected])
    for row in range(n):  # a mention is all that stands between its markers
        ids, markers = batch["ids"].tolist(), markers_of(arrays, row, setting, tokens)
        for side, (opening, closing) in (("head", markers[:2]), ("tail", markers[2:])):
            start, first, end = (int(batch[name][row]) for name in (side, f"{side}_first", f"{side}_end"))
            assert (ids[start:first], ids[end : end + len(closing)]) == (opening, closing)
            assert first < end
    assert batch["truncated"] == sum(cut > 0 for *_, cut in expected)
    assert batch["truncated_mentions"] == sum(cut > 1 for *_, cut in expected)
    return batch


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("max_length", [16, 17, 23, 40, 512])
def test_random_sentences_equal_the_oracle(setting, max_length):
    for seed in range(3):
        arrays = random_arrays(seed)
        blanks = np.random.default_rng(seed).integers(0, 2, (len(arrays["relation"]), 2)).astype(np.uint8)
        check_against_oracle(arrays, setting, max_length, blanks)
        check_against_oracle(arrays, setting, max_length)


@pytest.mark.parametrize("max_length", [16, 19])
def test_every_proportion_of_parts_equals_the_oracle(max_length):
    rng = np.random.default_rng(0)
    outer, mentions = (0, 1, 2, 5, 9, 14), (1, 2, 4, 5, 6, 9, 14)
    parts = [
        sentence(rng, left, first, middle, second, right)
        for left in outer
        for right in outer
        for middle in outer
        for first in mentions
        for second in mentions
    ]
    arrays = arrays_of(parts)
    batch = check_against_oracle(arrays, CM, max_length)
    assert 0 < batch["truncated_mentions"] < batch["truncated"] < len(parts)


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_markers_and_mentions_survive_any_window(setting):
    """Said without the oracle: what the window promises to whoever reads the vectors of the markers."""
    arrays = random_arrays(5, longest=60)
    for max_length in (16, 24, 48):
        batch = build_core(arrays, setting, max_length)
        for row, ids in enumerate(sequences(batch)):
            left, first, middle, second, right, tail_first = parts_of(arrays, row, setting)
            total = sum(map(len, (left, first, middle, second, right))) + 6
            assert len(ids) == min(total, max_length)  # no room is wasted
            assert ids[0] == TOKENS["cls"]
            assert ids[-1] == TOKENS["sep"]
            head, tail = (first, second) if not tail_first else (second, first)
            for name, mention in (("head", head), ("tail", tail)):
                assert ids.count(TOKENS[f"{name}_start"]) == ids.count(TOKENS[f"{name}_end"]) == 1
                kept = ids[ids.index(TOKENS[f"{name}_start"]) + 1 : ids.index(TOKENS[f"{name}_end"])]
                assert len(kept) >= 1
                assert kept == mention[: len(kept)]
                assert len(first) + len(second) + 6 > max_length or kept == mention
            assert (ids.index(TOKENS["tail_start"]) < ids.index(TOKENS["head_start"])) == tail_first


# The [MASK] with words alone, with both mentions, and with one of them twice and the other nowhere.
PROMPTS = {
    "words": [41, 42, TOKENS["mask"], 43],
    "mentions": [41, HEAD, 42, TAIL, 43, TOKENS["mask"], 44],
    "tail twice": [TAIL, TOKENS["mask"], TAIL],
}
# Of four types: single pieces as added tokens, and runs of unequal length.
MARKERS = {
    "tokens": [[[11 + m] for m in range(4)], *[[[15 + t]] * 4 for t in range(3)]],
    "runs": [[[50 + t] * (1 + (t + m) % 3) for m in range(4)] for t in range(4)],
}
FORMS = {
    **{name: with_form(prompt=prompt) for name, prompt in PROMPTS.items()},
    "text order": with_form(text_order=True),
    "typed": with_form(types=MARKERS["tokens"]),
    "all": with_form(prompt=PROMPTS["mentions"], types=MARKERS["runs"], text_order=True),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_prompts_and_markers_equal_the_oracle(form, setting):
    for seed, max_length in enumerate((29, 33, 47, 512)):
        arrays = random_arrays(seed, longest=30)
        blanks = np.random.default_rng(seed).integers(0, 2, (len(arrays["relation"]), 2)).astype(np.uint8)
        check_against_oracle(arrays, setting, max_length, blanks, tokens=form)
        batch = check_against_oracle(arrays, setting, max_length, tokens=form)
    assert batch["truncated"] == 0


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_prompts_survive_any_window(setting, prompt):
    """Said without the oracle: it stands whole behind the sentence and repeats what stands between the markers."""
    arrays, tokens = random_arrays(6, longest=60), with_form(prompt=prompt)
    for max_length in (26, 40, 64):
        batch = build_core(arrays, setting, max_length, tokens=tokens)
        assert batch["truncated"] > 0 or setting in (OM, OT)
        for s, ids in enumerate(sequences(batch)):
            assert len(ids) <= max_length
            end = ids.index(TOKENS["sep"])
            kept = {
                slot: ids[ids.index(TOKENS[f"{name}_start"]) + 1 : ids.index(TOKENS[f"{name}_end"])]
                for slot, name in ((HEAD, "head"), (TAIL, "tail"))
            }
            said = [piece for slot in prompt for piece in kept.get(slot, [slot])]
            assert ids[end + 1 :] == [*said, TOKENS["sep"]]
            row = batch["prompt_row"][s] - batch["cu_seqlens"][s]
            assert ids[row] == TOKENS["mask"]
            assert row > end


def test_a_prompt_leaves_the_sentence_as_it_is():
    arrays = random_arrays(7)
    for setting in SETTINGS.values():
        plain = build_core(arrays, setting, 512)
        prompted = build_core(arrays, setting, 512, tokens=FORMS["words"])
        assert (plain["prompt_row"] == -1).all()
        tail = [*PROMPTS["words"], TOKENS["sep"]]
        assert sequences(prompted) == [[*ids, *tail] for ids in sequences(plain)]


def test_typed_markers_say_a_type_once():
    """In C+M and OnlyM; the type itself stands there in C+T and OnlyT, and OnlyC tells none."""
    arrays, typed = random_arrays(8), FORMS["typed"]
    for setting in (CT, OC, OT):
        with_types, without = (build_core(arrays, setting, 40, tokens=tokens)["ids"] for tokens in (typed, TOKENS))
        np.testing.assert_array_equal(with_types, without)
    for setting in (CM, OM):
        with_types, without = (build_core(arrays, setting, 40, tokens=tokens)["ids"] for tokens in (typed, TOKENS))
        differing = np.isin(without, [TOKENS[f"{side}_{end}"] for side in ("head", "tail") for end in ("start", "end")])
        np.testing.assert_array_equal(with_types != without, differing)


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_text_order_hides_the_roles(setting):
    """A sentence and the same one with head and tail exchanged look alike; the rows of head and tail alone differ."""
    arrays = random_arrays(9)
    turned = dict(arrays, spans=np.ascontiguousarray(arrays["spans"][:, [2, 3, 0, 1]]))
    turned |= {"head_type": arrays["tail_type"], "tail_type": arrays["head_type"]}
    tokens = with_form(text_order=True, types=MARKERS["tokens"][:1] * 4)
    one, other = (build_core(a, setting, 40, tokens=tokens) for a in (arrays, turned))
    np.testing.assert_array_equal(one["ids"], other["ids"])
    np.testing.assert_array_equal(one["head"], other["tail"])
    by_role = build_core(arrays, setting, 40), build_core(turned, setting, 40)
    assert (by_role[0]["ids"] != by_role[1]["ids"]).any()


@pytest.mark.parametrize("text_order", [True, False])
def test_blanks_by_role_go_by_the_order_too(text_order):
    corpus, tokens = _core.Corpus(**random_arrays(11)), with_form(text_order=text_order, prompt=PROMPTS["mentions"])
    options = {
        "seed": 1,
        "sources": [relation_pairs(30)],
        "max_length": 64,
        "p_blank": 1.0,
        "mlm_probability": 0.0,
        "role_blanks": True,
    }
    batch = _core.Sampler(corpus, tokens, **options).batch(0)
    ordered = [ids.index(TOKENS["subject"]) < ids.index(TOKENS["object"]) for ids in sequences(batch)]
    by_head = batch["head"] < batch["tail"]
    assert 0 < by_head.sum() < len(by_head)
    np.testing.assert_array_equal(ordered, by_head | text_order)


def test_words_of_the_sentence_alone_are_masked():
    """Neither prompt nor markers, though they are words of the vocabulary: with probability 1, what plain input has."""
    corpus, options = (
        _core.Corpus(**random_arrays(10)),
        {"seed": 3, "sources": [relation_pairs(40)], "max_length": 512, "p_blank": 0.3},
    )
    options |= {"prefetch": False, "mlm_probability": 1.0, "input_weight": (0.4, 0.2, 0.2, 0.1, 0.1)}
    plain, *others = (_core.Sampler(corpus, form, **options).batch(0) for form in (TOKENS, *FORMS.values()))
    assert len(plain["mlm_label"]) > 1000
    for batch in others:
        order = np.lexsort((batch["mlm_label"], batch["sequence"][batch["mlm_row"]]))
        by_sequence = np.lexsort((plain["mlm_label"], plain["sequence"][plain["mlm_row"]]))  # OnlyM's order is a form's
        np.testing.assert_array_equal(batch["mlm_label"][order], plain["mlm_label"][by_sequence])
    prompted = others[0]
    for with_prompt, without in zip(sequences(prompted), sequences(plain), strict=True):
        assert with_prompt[: len(without)] == without  # the same draws


def test_packing():
    arrays = random_arrays(1)
    batch = build_core(arrays, CM, 32, rows=[5, 3, 3, 0])
    lengths = np.diff(batch["cu_seqlens"])
    assert batch["cu_seqlens"][0] == 0
    assert batch["max_len"] == lengths.max()
    np.testing.assert_array_equal(batch["pos"], np.concatenate([np.arange(n) for n in lengths]))
    np.testing.assert_array_equal(batch["sequence"], np.repeat(np.arange(4), lengths))
    np.testing.assert_array_equal(batch["sample"], np.arange(4))
    np.testing.assert_array_equal(batch["relation"], arrays["relation"][[5, 3, 3, 0]])
    np.testing.assert_array_equal(batch["ids"][batch["head"]], TOKENS["head_start"])
    np.testing.assert_array_equal(batch["ids"][batch["tail"]], TOKENS["tail_start"])
    assert len(batch["mlm_row"]) == len(batch["mlm_label"]) == 0
    np.testing.assert_array_equal(batch["row"], [5, 3, 3, 0])
    arrays_of = {name: value.dtype for name, value in batch.items() if isinstance(value, np.ndarray)}
    assert arrays_of == dict.fromkeys(arrays_of, np.int32) | {"row": np.int64}


def test_only_mentions_puts_the_head_first():
    arrays = arrays_of([([50, 51, 52, 53], [2, 4, 0, 1])])
    t = TOKENS
    wanted = [t["cls"], t["head_start"], 52, 53, t["head_end"], t["tail_start"], 50, t["tail_end"], t["sep"]]
    assert build_core(arrays, OM, 16)["ids"].tolist() == wanted


def test_blanks_leave_the_other_settings_alone():
    arrays = random_arrays(2, n=50)
    blanks = np.ones((50, 2), np.uint8)
    for setting in (CT, OC, OT):
        with_blanks, without = (build_core(arrays, setting, 64, blanks=b)["ids"] for b in (blanks, None))
        np.testing.assert_array_equal(with_blanks, without)


def test_an_empty_corpus_is_one():
    assert len(_core.Corpus(**arrays_of([]))) == 0


def good():
    return arrays_of(
        [([30, 31, 32, 33], [0, 1, 2, 4]), ([40, 41, 42], [2, 3, 0, 1]), ([50, 51], [0, 1, 1, 2])],
        relation=[0, 1, 1],
        n_relations=2,
        types=[[0, 1], [1, -1], [0, 0]],
        type_names=[[60], [61, 62]],
    )


@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        ("ids", 5, VOCAB, r"row 1: ids\[1\] is 200; expected 0 .. 199 \(vocab_size is 200\)"),
        ("ids", 0, -1, r"row 0: ids\[0\] is -1"),
        ("offsets", 0, 1, "row 0: offsets begins at 1; expected 0"),
        ("offsets", 2, 3, "row 1: offsets ends at 3; expected 4 .. 9"),
        ("offsets", 1, 10, "row 0: offsets ends at 10; expected 0 .. 9"),
        ("offsets", 3, 8, "offsets ends at 8; expected the 9 word pieces given"),
        ("spans", (1, 1), 4, r"row 1: spans: the head is \[2, 4\); expected 0 <= start < end <= 3"),
        ("spans", (1, 2), -1, r"row 1: spans: the tail is \[-1, 1\)"),
        ("spans", (2, 0), 1, r"row 2: spans: the head is \[1, 1\)"),
        ("spans", (0, 1), 3, r"row 0: spans: the head \[0, 3\) and the tail \[2, 4\) overlap"),
        ("spans", (1, 3), 3, r"row 1: spans: the head \[2, 3\) and the tail \[0, 3\) overlap"),
        ("relation", 1, 2, "row 1: relation is 2; expected 0 .. 1"),
        ("relation", 2, -1, "row 2: relation is -1; expected 0 .. 1"),
        ("head_id", 0, -2, "row 0: head_id is -2"),
        ("tail_id", 1, -2, "row 1: tail_id is -2"),
        ("head_type", 0, 2, "row 0: head_type is 2; expected -1 .. 1"),
        ("tail_type", 2, -2, "row 2: tail_type is -2; expected -1 .. 1"),
        ("type_ids", 1, VOCAB, r"type 1: type_ids\[0\] is 200"),
        ("type_offsets", 1, 0, "type 0: type_offsets: its name has no word pieces"),
        ("type_offsets", 2, 4, "type 1: type_offsets ends at 4; expected 1 .. 3"),
    ],
)
def test_corpus_names_the_row_and_the_field(name, index, value, message):
    arrays = good()
    _core.Corpus(**arrays)
    arrays[name][index] = value
    with pytest.raises(ValueError, match=message):
        _core.Corpus(**arrays)


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("spans", np.zeros((3, 2)), ValueError, r"spans: .* int32 array of shape \(3, 4\), got float64 \(3, 2\)"),
        (
            "ids",
            np.zeros(9, np.int64),
            ValueError,
            r"ids: expected a C-contiguous int32 array of shape \(n,\), got int64 \(9,\)",
        ),
        ("ids", np.zeros(18, np.int32)[::2], ValueError, r"got int32 \(9,\), which is not C-contiguous"),
        ("ids", np.zeros(9, ">i4"), ValueError, r"ids: .*, got >i4 \(9,\)"),
        ("relation", [0, 1, 1], TypeError, r"relation: .* of shape \(3,\), got an object of type list"),
        ("head_id", np.zeros(2, np.int32), ValueError, r"head_id: .* of shape \(3,\), got int32 \(2,\)"),
        ("offsets", np.zeros(0, np.int64), ValueError, "offsets has 0 elements"),
        ("n_relations", 0, ValueError, "n_relations is 0; expected at least 1"),
        ("vocab_size", -1, ValueError, "vocab_size is -1; expected at least 1"),
        ("vocab_size", 2**40, ValueError, "vocab_size is 1099511627776; expected a 32-bit integer"),
        ("vocab_size", 1.5, TypeError, "float"),
    ],
)
def test_corpus_names_the_argument(name, value, error, message):
    with pytest.raises(error, match=message):
        _core.Corpus(**{**good(), name: value})


def test_corpus_reads_read_only_arrays():
    arrays = good()
    for array in arrays.values():
        if isinstance(array, np.ndarray):
            array.setflags(write=False)
    assert len(_core.Corpus(**arrays)) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": [0, 3]}, "row 3 is not in the corpus; expected 0 .. 2"),
        ({"rows": [-1]}, "row -1 is not in the corpus"),
        ({"rows": []}, "a batch of 0 sequences"),
        ({"max_length": 15}, "max_length is 15; expected 16 .. 65535"),
        ({"max_length": 65536}, "max_length"),
        ({"setting": 5}, r"input is 5; expected 0 .. 4 \(C\+M, C\+T, OnlyC, OnlyM, OnlyT\)"),
        ({"setting": -1}, "input is -1"),
        ({"setting": CT, "rows": [0, 1]}, r"row 1: tail_type is -1 \(unknown\)"),
        ({"setting": OT, "rows": [1]}, r"row 1: tail_type is -1 \(unknown\)"),
        ({"tokens": {**TOKENS, "blank": VOCAB}}, "tokens: blank is 200; expected 0 .. 199"),
        ({"tokens": {**TOKENS, "blank": 50}}, r"tokens: special\[50\] is 0, but blank has this id"),
        ({"tokens": {k: v for k, v in TOKENS.items() if k != "mask"}}, 'tokens: there is no "mask"'),
        ({"tokens": {k: v for k, v in TOKENS.items() if k != "special"}}, 'tokens: there is no "special"'),
        ({"tokens": {**TOKENS, "special": np.ones(9)}}, r"special: expected a C-contiguous uint8 array"),
        ({"tokens": with_form(prompt=[30, 31])}, r"tokens: the prompt has 0 \[MASK\]; expected one"),
        ({"tokens": with_form(prompt=[3, 31, 3])}, r"tokens: the prompt has 2 \[MASK\]; expected one"),
        ({"tokens": with_form(prompt=[3, VOCAB])}, "tokens: a piece of the prompt is 200; expected 0 .. 199"),
        ({"tokens": with_form(prompt=[3, -3])}, "tokens: a piece of the prompt is -3"),
        (
            {"tokens": with_form(prompt=[3] + [31] * 20)},
            "max_length is 32, of which the markers and the prompt take 28 beside the mentions; expected at least 38",
        ),
        (
            {"tokens": with_form(types=[[[11]] * 4] * 2), "rows": [0, 1]},
            r"row 1: tail_type is -1 \(unknown\), and typed",
        ),
        ({"tokens": with_form(types=[[[11]] * 4]), "rows": [0]}, "row 0: tail_type is 1, and there are .* of 1 types"),
        ({"tokens": with_form(types=[[[11], [], [12], [13]]])}, "tokens: marker 1 of type 0 is marker_ids"),
        ({"tokens": with_form(types=[[[11], [12], [VOCAB], [13]]])}, "a piece of a typed marker is 200"),
        (
            {"tokens": {**FORMS["typed"], "marker_offsets": np.arange(4, dtype=np.int32)}},
            "marker_offsets has 4 elements",
        ),
        ({"tokens": {**TOKENS, "prompt": np.zeros(3)}}, r"prompt: expected a C-contiguous int32 array"),
        ({"blanks": np.zeros((2, 2), np.uint8)}, r"blanks: .* of shape \(3, 2\), got uint8 \(2, 2\)"),
    ],
)
def test_build_batch_names_what_is_wrong(change, message):
    options = {"setting": CM, "max_length": 32, **change}
    with pytest.raises(ValueError, match=message):
        build_core(good(), **options)


def test_build_batch_wants_a_corpus():
    with pytest.raises(TypeError, match=r"corpus: expected a .*Corpus.*, got .*dict"):
        _core.build_batch({}, TOKENS, np.zeros(1, np.int64), CM, 32)


@pytest.fixture
def library():
    library = ctypes.CDLL(_core.__file__)
    library.rp_message.restype = ctypes.c_char_p
    library.rp_batch_new.argtypes = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    library.rp_batch_clear.argtypes = library.rp_batch_free.argtypes = (ctypes.c_void_p,)
    library.rp_batch_slice.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32)
    return library


@pytest.fixture
def new_batch(library):
    made = []

    def new(sequences, tokens):
        made.append(ctypes.POINTER(Batch)())
        assert library.rp_batch_new(ctypes.byref(made[-1]), sequences, tokens) == 0
        return made[-1].contents

    yield new
    for batch in made:
        library.rp_batch_free(batch)


def fill(batch, source):
    batch.S, batch.T, batch.M = len(source["sample"]), len(source["ids"]), len(source["mlm_row"])
    for name in Batch.arrays:
        ctypes.memmove(getattr(batch, name), source[name].ctypes.data, source[name].nbytes)


@pytest.mark.parametrize("tokens", [TOKENS, FORMS["words"]], ids=["plain", "prompt"])
def test_slices_are_batches_of_their_own(library, new_batch, tokens):
    corpus = _core.Corpus(**random_arrays(3))
    options = {"seed": 1, "sources": [relation_pairs(6)], "max_length": 28, "prefetch": False, "mlm_probability": 0.3}
    whole = _core.Sampler(corpus, tokens, **options).batch(0)
    batch, part = new_batch(12, 12 * 28), new_batch(12, 12 * 28)
    fill(batch, whole)
    for first in range(12):
        for last in range(first + 1, 13):
            assert library.rp_batch_slice(ctypes.byref(part), ctypes.byref(batch), first, last) == 0
            t0, t1 = whole["cu_seqlens"][[first, last]]
            masked = (whole["mlm_row"] >= t0) & (whole["mlm_row"] < t1)
            wanted = {name: whole[name][t0:t1] for name in ("ids", "pos")}
            wanted |= {name: whole[name][first:last] for name in ("sample", "relation", "pair")}
            wanted |= {name: whole[name][first:last] - t0 for name in ("head", "tail", *Batch.mentions)}
            wanted["prompt_row"] = np.maximum(whole["prompt_row"][first:last] - t0, -1)
            wanted["sequence"] = whole["sequence"][t0:t1] - first
            wanted["cu_seqlens"] = whole["cu_seqlens"][first : last + 1] - t0
            wanted |= {name: whole[name][masked] - t0 for name in ("mlm_row", "span_left", "span_right")}
            wanted |= {name: whole[name][masked] for name in ("mlm_label", "span_place")}
            found = part.dict()
            assert found == {name: wanted[name].tolist() for name in found}
            assert part.max_len == np.diff(whole["cu_seqlens"])[first:last].max()


def test_a_slice_can_be_used_as_a_batch_again(library, new_batch):
    corpus = _core.Corpus(**random_arrays(3))
    whole = _core.Sampler(corpus, TOKENS, sources=[relation_pairs(2)], seed=1, max_length=24, prefetch=False).batch(0)
    batch, part = new_batch(4, 96), new_batch(4, 96)
    own = [ctypes.addressof(getattr(part, name).contents) for name in Batch.arrays]
    fill(batch, whole)
    assert library.rp_batch_slice(ctypes.byref(part), ctypes.byref(batch), 1, 3) == 0
    library.rp_batch_clear(ctypes.byref(part))
    assert [ctypes.addressof(getattr(part, name).contents) for name in Batch.arrays] == own
    assert (part.S, part.T, part.M, part.max_len, part.cu_seqlens[0]) == (0, 0, 0, 0, 0)


def test_slices_out_of_range_and_too_large_are_refused(library, new_batch):
    corpus = _core.Corpus(**random_arrays(3))
    whole = _core.Sampler(corpus, TOKENS, sources=[relation_pairs(2)], seed=1, max_length=24, prefetch=False).batch(0)
    batch, narrow, short = new_batch(4, 96), new_batch(4, 10), new_batch(1, 96)
    fill(batch, whole)
    for target, first, last, message in (
        (batch, 0, 5, b"slice [0, 5) of a batch of 4 sequences"),
        (batch, 2, 2, b"slice [2, 2)"),
        (batch, -1, 2, b"slice [-1, 2)"),
        (narrow, 0, 2, b"its memory holds 4 and 10"),
        (short, 0, 2, b"its memory holds 1 and 96"),
    ):
        assert library.rp_batch_slice(ctypes.byref(target), ctypes.byref(batch), first, last) == 1
        assert message in library.rp_message()


@pytest.mark.parametrize(("sequences", "tokens"), [(0, 10), (10, 0), (-1, 10), (2**31, 10), (10, 2**31)])
def test_batches_of_impossible_size_are_refused(library, sequences, tokens):
    out = ctypes.POINTER(Batch)()
    assert library.rp_batch_new(ctypes.byref(out), sequences, tokens) == 1
    assert b"expected 1 .. 2147483646 of each" in library.rp_message()
    assert not out


# -- words alone, and their tags -------------------------------------------------------------------------------------

FIXED = ("cls", "sep", "head_start", "head_end", "tail_start", "tail_end")
BARE = {"bare": True, **{name: TOKENS[name] for name in ("mask", "blank", "subject", "object", "special")}}


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("max_length", [16, 25, 512])
def test_bare_sequences_are_the_others_without_fixed_tokens(setting, max_length):
    arrays = random_arrays(6)
    with_markers = build_core(arrays, setting, max_length + len(FIXED))
    bare = build_core(arrays, setting, max_length, tokens=BARE)
    fixed = {TOKENS[name] for name in FIXED}
    assert sequences(bare) == [[i for i in ids if i not in fixed] for ids in sequences(with_markers)]
    for name in ("truncated", "truncated_mentions"):
        assert bare[name] == with_markers[name]


@pytest.mark.parametrize("tokens", [TOKENS, BARE], ids=["markers", "bare"])
@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_mentions_end_behind_their_last_piece(setting, tokens):
    arrays = random_arrays(7)
    batch = build_core(arrays, setting, 512, tokens=tokens)
    marker = 0 if "bare" in tokens else 1
    for s in range(len(arrays["relation"])):
        _, first, _, second, _, tail_first = parts_of(arrays, s, setting)
        wanted = (second, first) if tail_first else (first, second)
        for side, mention in zip(("head", "tail"), wanted, strict=True):
            rows = slice(batch[side][s] + marker, batch[f"{side}_end"][s])
            assert batch["ids"][rows].tolist() == mention


@pytest.mark.parametrize("tokens", [TOKENS, BARE], ids=["markers", "bare"])
@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("max_length", [20, 512])
def test_words_keep_their_tags_and_what_replaces_a_mention_has_none(setting, tokens, max_length):
    arrays = random_arrays(8)
    arrays |= {"pos_tag": arrays["ids"] % 5 + 1, "n_pos": 6, "ner_tag": arrays["ids"] % 3 + 1, "n_ner": 4}
    batch = build_core(arrays, setting, max_length, tokens=tokens)
    word = ~np.isin(batch["ids"], [TOKENS[name] for name in FIXED])
    for s in range(len(arrays["relation"])):
        if setting in (OC, CT, OT):
            word[batch["head"][s] : batch["head_end"][s]] = False
            word[batch["tail"][s] : batch["tail_end"][s]] = False
    np.testing.assert_array_equal(batch["pos_tag"], np.where(word, batch["ids"] % 5 + 1, 0))
    np.testing.assert_array_equal(batch["ner_tag"], np.where(word, batch["ids"] % 3 + 1, 0))
    assert word.any() == (setting != OT)


def test_a_blanked_mention_has_no_tags():
    arrays = random_arrays(9, n=20)
    arrays |= {"pos_tag": np.ones_like(arrays["ids"]), "n_pos": 2}
    batch = build_core(arrays, CM, 512, blanks=np.ones((20, 2), np.uint8), tokens=BARE)
    np.testing.assert_array_equal(batch["pos_tag"] == 0, batch["ids"] == TOKENS["blank"])
    assert not batch["ner_tag"].any()


def test_wrong_tags_are_refused():
    arrays = random_arrays(9, n=20)
    wrong = arrays["offsets"][1:-1].copy()
    tags = np.zeros_like(arrays["ids"])
    with pytest.raises(ValueError, match="pos_tag: expected"):
        _core.Corpus(**arrays, pos_tag=tags[1:], n_pos=3)
    tags[int(wrong[3]) + 1] = 3
    with pytest.raises(ValueError, match=r"row 4: ner_tag\[1\] is 3; expected 0 .. 2 \(n_ner is 3\)"):
        _core.Corpus(**arrays, ner_tag=tags, n_ner=3)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"prompt": [TOKENS["mask"]]}, "bare sequences with a prompt; expected words alone"),
        ({"types": [[[30]] * 4]}, "bare sequences with typed markers; expected words alone"),
    ],
)
def test_bare_sequences_have_neither_prompt_nor_markers(form, message):
    with pytest.raises(ValueError, match=message):
        build_core(random_arrays(9, n=20), CM, 20, tokens=with_form(BARE, **form))


@pytest.mark.parametrize("name", ["mask", "blank", "subject", "object"])
def test_bare_tokens_that_are_needed(name):
    arrays = random_arrays(9, n=20)
    with pytest.raises(ValueError, match=f'there is no "{name}"'):
        build_core(arrays, CM, 20, tokens={key: value for key, value in BARE.items() if key != name})
