"""From sentences to word pieces: mentions stay aligned, user text stays text, the user's tokenizer stays as it is."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

import relpt
from relpt.corpus import tokenizer_fingerprint
from relpt.corpus.tokenizing import continuations

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = (
    "ada love ##lace met in lon ##don the naive cafe strasse e a b c x ##x ##e1 1 e1 mask sep cls un ##used unused ##1 "
    "东 京 日 本 fi ##fi person work of art gpe 1815 ' s . , - [ ] < > ( ) ##a ##b ##c"
)
WORDS = [
    "Ada",
    "Lovelace",
    "London",
    "naïve",
    "CAFÉ",
    "cafe\u0301",
    "东京",
    "日本x",
    "😀",
    "zzz",
    "1815",
    "Ada's",
    "a-b",
    "x",
]
BLANKS = [" ", "  ", "\u00a0", "\n ", "\t", " \u200b "]


def word_piece() -> Tokenizer:
    """A small BERT-like tokenizer: lower case, accents stripped, CJK apart."""
    vocab = {piece: i for i, piece in enumerate([*SPECIAL, "[unused1]", *dict.fromkeys(PIECES.split())])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=40))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=12)
    return tokenizer


def byte_level() -> Tokenizer:
    """A byte-level BPE: several pieces share one character."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(["Ada Lovelace in London"] * 9, trainer)
    return tokenizer


def data_of(text: str, head: str, tail: str, **more: Any) -> relpt.Dataset:
    a, b = text.index(head), text.index(tail)
    record = {"text": text, "h": {"pos": [a, a + len(head)]}, "t": {"pos": [b, b + len(tail)]}, "relation": "r", **more}
    return relpt.load([record])


def pieces(corpus: relpt.Corpus, tokenizer: Tokenizer, row: int = 0) -> tuple[list[str], list[str], list[str]]:
    """Sentence, head and tail of a row as word pieces."""
    ids = corpus.ids[corpus.offsets[row] : corpus.offsets[row + 1]].tolist()
    tokens = [tokenizer.id_to_token(i) for i in ids]
    a, b, c, d = corpus.spans[row].tolist()
    return tokens, tokens[a:b], tokens[c:d]


def test_pieces_that_go_on_with_a_word() -> None:
    tokenizer = word_piece()
    flags = continuations(tokenizer, tokenizer.get_vocab_size() + 5)
    marked = {tokenizer.id_to_token(int(i)) for i in np.flatnonzero(flags)}
    assert marked == {token for token in tokenizer.get_vocab() if token.startswith("##")} != set()
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "▁a": 1, "b": 2}, unk_token="[UNK]"))
    assert not continuations(words, 3).any()


@pytest.mark.parametrize("seed", range(30))
def test_mentions_between_blanks_have_the_pieces_of_their_own_text(seed: int) -> None:
    draw = np.random.default_rng(seed)
    records = []
    for _ in range(40):
        parts, starts, ends, at = [], [], [], 0
        for k in draw.integers(len(WORDS), size=10):
            starts.append(at)
            ends.append(at + len(WORDS[k]))
            parts += [WORDS[k], BLANKS[draw.integers(len(BLANKS))]]
            at = ends[-1] + len(parts[-1])
        cut = np.sort(draw.choice(11, 4, replace=False)).tolist()
        spans = [[starts[cut[0]], ends[cut[1] - 1]], [starts[cut[2]], ends[cut[3] - 1]]]
        head, tail = spans if draw.random() < 0.5 else spans[::-1]
        records.append({"text": "".join(parts), "h": {"pos": head}, "t": {"pos": tail}, "relation": "r"})
    data, tokenizer = relpt.load(records), word_piece()
    corpus = data.tokenize(tokenizer, max_length=10_000)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for row, instance in enumerate(data):
        expected = [
            tokenizer.encode(t, add_special_tokens=False).tokens
            for t in (instance.text, instance.head_text, instance.tail_text)
        ]
        assert list(pieces(corpus, tokenizer, row)) == expected


@pytest.mark.parametrize("seed", range(10))
def test_byte_level_mentions_cover_all_their_bytes(seed: int) -> None:
    draw = np.random.default_rng(seed)
    alphabet = list("Ada Lovelace é日本😀ﬁ\u0301")
    text = "".join(alphabet[i] for i in draw.integers(len(alphabet), size=60)) + "."
    tokenizer = byte_level()
    for _ in range(30):
        a, b, c, d = np.sort(draw.choice(61, 4, replace=False)).tolist()
        if not text[a:b].strip() or not text[c:d].strip() or text[a] == "\u0301" or text[c] == "\u0301" or c - b < 6:
            continue
        corpus = relpt.Dataset([relpt.Instance(text, (a, b), (c, d), "r")]).tokenize(tokenizer, max_length=10_000)
        _, head, tail = pieces(corpus, tokenizer)
        table = {v: k for k, v in _bytes_to_unicode().items()}
        for mention, got in ((text[a:b], head), (text[c:d], tail)):
            assert mention.encode() in bytes(table[ch] for ch in "".join(got))


def _bytes_to_unicode() -> dict[int, str]:
    """The byte-level alphabet: printable bytes as themselves, the others from U+0100 on."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [i for i in range(256) if i not in kept]
    return {**{i: chr(i) for i in kept}, **{b: chr(256 + k) for k, b in enumerate(rest)}}


@pytest.mark.parametrize(
    ("text", "head", "tail", "head_pieces", "tail_pieces"),
    [
        ("Ada Lovelace met London.", "Ada Lovelace", "London", ["ada", "love", "##lace"], ["lon", "##don"]),
        ("CAFÉ in Straße e\u0301 a", "CAFÉ", "e\u0301", ["cafe"], ["e"]),
        ("东京x 日本", "京", "日本", ["京"], ["日", "本"]),
        ("😀 met 😀a b", "😀", "b", ["[UNK]"], ["b"]),
        ("Ada's London", "Ada", "s", ["ada"], ["s"]),
        ("in London (x)", "Lond", "(x)", ["lon", "##don"], ["(", "x", ")"]),
        ("lovelace a", "lace", "a", ["##lace"], ["a"]),
        ("the\x00 Ada\u200b x", "Ada\u200b", "x", ["ada"], ["x"]),
    ],
)
def test_alignment(text: str, head: str, tail: str, head_pieces: list[str], tail_pieces: list[str]) -> None:
    tokenizer = word_piece()
    if tail == "a":
        data = relpt.load([{"text": text, "h": {"pos": [4, 8]}, "t": {"pos": [9, 10]}, "relation": "r"}])
    elif text.count(tail) > 1:
        end = len(text)
        record = {"text": text, "h": {"pos": [0, len(head)]}, "t": {"pos": [end - len(tail), end]}, "relation": "r"}
        data = relpt.load([record])
    else:
        data = data_of(text, head, tail)
    assert pieces(data.tokenize(tokenizer), tokenizer)[1:] == (head_pieces, tail_pieces)


def test_types_are_words_inside_a_sentence() -> None:
    """Byte-level pieces hold the blank before their word."""
    tokenizer = byte_level()
    instance = relpt.Instance("Ada met Bob", (0, 3), (8, 11), "r", head_type="person", tail_type="WORK_OF_ART")
    corpus = relpt.Dataset([instance]).tokenize(tokenizer)
    pieces_of_types = "".join(tokenizer.id_to_token(number) for number in corpus.type_ids.tolist())
    assert pieces_of_types == "ĠWORKĠOFĠARTĠperson"


@pytest.mark.parametrize("special", ["[SEP]", "[MASK]", "[CLS]", "[PAD]", "[UNK]", "[unused1]", "[E1]", "[BLANK]"])
def test_special_text_stays_text(special: str) -> None:
    tokenizer = word_piece()
    tokenizer.add_special_tokens(["[E1]", "[BLANK]", "[unused1]"])
    reserved = {tokenizer.token_to_id(t) for t in (*SPECIAL, "[E1]", "[BLANK]", "[unused1]")} - {
        tokenizer.token_to_id("[UNK]")
    }
    corpus = data_of(f"Ada {special} met London", "Ada", "London").tokenize(tokenizer)
    assert not reserved & set(corpus.ids.tolist())
    tokens, head, tail = pieces(corpus, tokenizer)
    assert (tokens[1], head, tail) == ("[", ["ada"], ["lon", "##don"])
    corpus = data_of(f"Ada {special} met London", special, "London").tokenize(tokenizer)
    assert pieces(corpus, tokenizer)[1][0] == "["


def test_special_text_that_the_splitter_leaves_whole_is_unknown() -> None:
    tokenizer = word_piece()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.normalizer = normalizers.Sequence([])
    corpus = data_of("ada [MASK] met x", "ada", "x").tokenize(tokenizer)
    assert pieces(corpus, tokenizer)[0] == ["ada", "[UNK]", "met", "x"]
    tokenizer.model = models.WordLevel({"ada": 0, "x": 1, "[MASK]": 2})
    tokenizer.add_special_tokens(["[MASK]"])
    with pytest.raises(relpt.FormatError, match=r"'\[MASK\]'"):
        data_of("ada [MASK] x", "ada", "x").tokenize(tokenizer)


def test_the_tokenizer_given_is_not_changed() -> None:
    tokenizer = word_piece()
    before = tokenizer.to_str()
    data_of("Ada met London", "Ada", "London").tokenize(tokenizer)
    assert tokenizer.to_str() == before
    assert tokenizer.encode_special_tokens is False
    assert tokenizer.encode("ada [MASK]").tokens[:4] == ["[CLS]", "ada", "[MASK]", "[SEP]"]


def test_every_way_to_name_a_tokenizer(tmp_path: Path) -> None:
    tokenizer = word_piece()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    data = data_of("Ada met London", "Ada", "London")
    sources = [
        tokenizer,
        SimpleNamespace(tokenizer=tokenizer),
        SimpleNamespace(backend_tokenizer=tokenizer),
        SimpleNamespace(tokenizer=SimpleNamespace(backend_tokenizer=tokenizer)),
        tmp_path,
        str(tmp_path / "tokenizer.json"),
    ]
    hashes = {data.tokenize(source).data_hash for source in sources}
    assert len(hashes) == 1
    with pytest.raises(TypeError, match="cannot tokenize with a dict"):
        data.tokenize({})
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        data.tokenize(tmp_path / "nowhere")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(relpt.FormatError, match=r"tokenizer\.json"):
        data.tokenize(tmp_path)
    with pytest.raises(ValueError, match="max_length=0"):
        data.tokenize(tokenizer, max_length=0)


def test_mentions_that_touch_get_pieces_of_their_own() -> None:
    tokenizer = word_piece()
    for head, tail in ((0, 4), (4, 8)), ((4, 8), (0, 4)):
        data = relpt.load([{"text": "lovelace", "h": {"pos": list(head)}, "t": {"pos": list(tail)}, "relation": "r"}])
        assert sorted(pieces(data.tokenize(tokenizer), tokenizer)[1:]) == [["##lace"], ["love"]]
    record = {"text": "x cab x", "h": {"pos": [4, 5]}, "t": {"pos": [2, 3]}, "relation": "r"}
    data = relpt.load([record, {**record, "text": "a bzz a", "h": {"pos": [0, 1]}, "t": {"pos": [2, 3]}}])
    corpus = data.tokenize(tokenizer)
    assert pieces(corpus, tokenizer, 0) == (["x", "c", "##a", "##b", "x"], ["##b"], ["c"])
    data = relpt.load([{"text": "the zqz x", "h": {"pos": [4, 5]}, "t": {"pos": [6, 7]}, "relation": "r"}])
    assert pieces(data.tokenize(tokenizer), tokenizer) == (
        ["the", "[UNK]", "[UNK]", "[UNK]", "x"],
        ["[UNK]"],
        ["[UNK]"],
    )


def test_a_mention_without_a_piece_is_an_error() -> None:
    tokenizer = word_piece()
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace("q", ""), normalizers.BertNormalizer()])
    with pytest.raises(
        relpt.FormatError, match=r"data: record 0: the tail mention 'q' has no word piece.*remove the record"
    ):
        data_of("Ada met q", "Ada", "q").tokenize(tokenizer)


def test_truncation_is_counted_and_nothing_is_cut() -> None:
    tokenizer = word_piece()
    records = [
        {"text": "ada met " + "x " * n, "h": {"pos": [0, 3]}, "t": {"pos": [8, 9]}, "relation": "r"}
        for n in (1, 20, 30)
    ]
    with pytest.warns(
        relpt.TruncationWarning, match=r"2 of 3 sentences are longer than max_length=16 .*longest needs 38"
    ) as seen:
        corpus = relpt.load(records).tokenize(tokenizer, max_length=16)
    assert len(seen) == 1
    assert seen[0].filename == __file__
    assert (corpus.n_longer, corpus.max_length) == (2, 16)
    assert corpus.lengths().tolist() == [3, 22, 32]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        relpt.load(records).tokenize(tokenizer, max_length=38)


def test_relations_entities_and_types() -> None:
    def record(head: str, head_id: str | None, tail: str | None, relation: str, **types: str) -> dict[str, Any]:
        h = {"pos": [0, 3], "name": head, "id": head_id, "type": types.get("h")}
        return {
            "text": f"{head} x",
            "h": h,
            "t": {"pos": [4, 5], "name": tail, "type": types.get("t")},
            "relation": relation,
        }

    data = relpt.load(
        [
            record("Ada", "Q1", "X", "b", h="WORK_OF_ART", t="GPE"),
            record("ADA", None, "x", "a", h="PERSON"),
            record("Ada", "Q1", None, "b"),
            record("Bob", None, "x", "b", t="PERSON"),
        ]
    )
    tokenizer = word_piece()
    corpus = data.tokenize(tokenizer)
    assert corpus.relations == corpus.labels == ["a", "b"]
    assert corpus.relation.tolist() == [1, 0, 1, 1]
    assert corpus.head_id.tolist() == [0, 0, 0, 2]
    assert corpus.tail_id.tolist() == [1, 1, -1, 1]
    assert corpus.n_entities == 3
    assert corpus.types == ["GPE", "PERSON", "WORK_OF_ART"]
    assert corpus.head_type.tolist() == [2, 1, -1, -1]
    assert corpus.tail_type.tolist() == [0, -1, -1, 1]
    names = [tokenizer.id_to_token(i) for i in corpus.type_ids.tolist()]
    assert (names, corpus.type_offsets.tolist()) == (["gpe", "person", "work", "of", "art"], [0, 1, 2, 5])


def test_one_entity_with_two_ids_stays_two() -> None:
    def record(name: str, id_: str | None) -> dict[str, Any]:
        return {
            "text": f"{name} x",
            "h": {"pos": [0, 3], "name": name, "id": id_},
            "t": {"pos": [4, 5]},
            "relation": "r",
        }

    data = relpt.load([record("Ada", "Q1"), record("Ada", "Q2"), record("ada", None)])
    assert data.tokenize(word_piece()).head_id.tolist() == [0, 1, 2]


def test_unlabelled_data_has_one_pseudo_relation() -> None:
    corpus = relpt.load([{"text": "ada x", "h": {"pos": [0, 3]}, "t": {"pos": [4, 5]}}]).tokenize(word_piece())
    assert (corpus.labelled, corpus.labels, len(corpus.relations), corpus.relation.tolist()) == (False, [], 1, [0])
    mixed = relpt.Dataset([relpt.Instance("a b", (0, 1), (2, 3), "r"), relpt.Instance("a b", (0, 1), (2, 3))])
    with pytest.raises(ValueError, match="instance 1 has no relation"):
        mixed.tokenize(word_piece())


def test_no_data_and_many_data() -> None:
    empty = relpt.load([]).tokenize(word_piece())
    assert (len(empty), empty.ids.size, empty.spans.shape) == (0, 0, (0, 4))
    records = [
        {"text": "ada met x" + " x" * (i % 5), "h": {"pos": [0, 3]}, "t": {"pos": [8, 9]}, "relation": "r"}
        for i in range(5000)
    ]
    corpus = relpt.load(records).tokenize(word_piece())
    assert corpus.lengths().tolist() == [3 + i % 5 for i in range(5000)]
    assert (corpus.spans == [0, 1, 2, 3]).all()


def test_the_fingerprint_follows_plain_text_alone() -> None:
    tokenizer = word_piece()
    first = tokenizer_fingerprint(tokenizer)
    tokenizer.add_special_tokens(["[E1]", "[/E1]"])
    tokenizer.no_truncation()
    assert tokenizer_fingerprint(tokenizer) == first
    tokenizer.add_tokens([AddedToken("london")])
    assert tokenizer_fingerprint(tokenizer) != first
    assert tokenizer_fingerprint(byte_level()) != first


def test_progress_bars(capsys: pytest.CaptureFixture[str]) -> None:
    data = data_of("Ada met London", "Ada", "London")
    data.tokenize(word_piece())
    assert capsys.readouterr().err == ""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.tokenize(word_piece(), show_progress_bar=True)
    assert "tokenize" in capsys.readouterr().err


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["fewrel/val_wiki.json", "chemprot/train.jsonl", "webnlg/dev.jsonl", "wiki80/dev.txt"])
def test_real_mentions_are_covered(name: str) -> None:
    if not (REAL / name).is_file():
        pytest.skip(f"needs the datasets: {REAL / name} is absent")
    data = relpt.load(REAL / name)
    corpus = data.tokenize(byte_level(), max_length=10_000)
    spans = corpus.spans
    assert (spans[:, [0, 2]] < spans[:, [1, 3]]).all()
    assert ((spans[:, 1] <= spans[:, 2]) | (spans[:, 3] <= spans[:, 0])).all()
    assert (spans.max(axis=1) <= corpus.lengths()).all()
