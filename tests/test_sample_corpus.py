"""The shipped sample corpus keeps what its data card says."""

import json
import re
from collections import defaultdict

import pytest

import relpt
from relpt.data.shipped import SAMPLE_FOLDER

PLACEHOLDERS = ("", " headmention ", " mention ")  # left out, told apart, the same


@pytest.fixture(scope="module")
def corpus():
    return relpt.load_sample("all")


def context(instance, head, tail):
    """The sentence's words in lower case, with `head` and `tail` in place of the mentions."""
    spans = sorted([(instance.head, head), (instance.tail, tail)])
    ((s1, e1), first), ((s2, e2), second) = spans
    text = instance.text[:s1] + first + instance.text[e1:s2] + second + instance.text[e2:]
    return re.findall(r"[\w'’-]+", text.lower())


def by_relation(corpus):
    groups = defaultdict(list)
    for instance in corpus:
        groups[instance.relation].append(instance)
    return groups


def test_counts(corpus):
    counts = corpus.label_counts()
    assert len(relpt.load_sample("train").labels) >= 16
    assert len(relpt.load_sample("unseen").labels) >= 8
    assert not set(relpt.load_sample("train").labels) & set(relpt.load_sample("unseen").labels)
    assert min(counts.values()) >= 40
    card = (SAMPLE_FOLDER / "CARD.md").read_text(encoding="utf-8")
    for part in ("train", "unseen"):
        assert re.search(rf"`{part}\.jsonl`.*\| {len(relpt.load_sample(part))} \|", card)


def test_every_relation_is_described_and_every_mention_typed(corpus):
    relations = relpt.sample_relations()
    assert set(relations) == set(corpus.labels)
    for part in ("train", "unseen"):
        described = {name for name, entry in relations.items() if entry["part"] == part}
        assert described == set(relpt.load_sample(part).labels)
    assert all(entry["description"].endswith(".") for entry in relations.values())
    assert all(instance.head_type and instance.tail_type for instance in corpus)


@pytest.mark.parametrize("placeholder", PLACEHOLDERS)
def test_all_contexts_differ(corpus, placeholder):
    contexts = [" ".join(context(i, placeholder, placeholder.replace("head", "tail"))) for i in corpus]
    assert len(set(contexts)) == len(corpus)


@pytest.mark.parametrize("placeholder", PLACEHOLDERS)
def test_no_run_of_five_words_is_common_in_a_relation(corpus, placeholder):
    for relation, group in by_relation(corpus).items():
        holders = defaultdict(set)
        for number, instance in enumerate(group):
            words = context(instance, placeholder, placeholder.replace("head", "tail"))
            for start in range(len(words) - 4):
                holders[tuple(words[start : start + 5])].add(number)
        run, most = max(holders.items(), key=lambda item: len(item[1]))
        assert len(most) <= 0.05 * len(group), (relation, " ".join(run), len(most))


def test_relations_share_types_and_entity_pairs(corpus):
    pairs, types = defaultdict(set), defaultdict(set)
    for i in corpus:
        pairs[i.head_text, i.tail_text].add(i.relation)
        types[i.head_type, i.tail_type].add(i.relation)
    assert sum(len(relations) > 1 for relations in pairs.values()) >= 40
    assert sum(len(relations) > 1 for relations in types.values()) >= 5


def test_both_orders_of_head_and_tail_occur_in_every_relation(corpus):
    for relation, group in by_relation(corpus).items():
        share = sum(i.head < i.tail for i in group) / len(group)
        assert 0.3 <= share <= 0.8, (relation, share)


def test_files_are_plain_opennre_lines():
    for part in ("train", "unseen"):
        for line in (SAMPLE_FOLDER / f"{part}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            for key in ("h", "t"):
                start, end = row[key]["pos"]
                assert row["text"][start:end] == row[key]["name"]
