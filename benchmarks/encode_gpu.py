"""Encoding speed of relpt on a GPU against PyTorch and sentence-transformers on the same one, in turns.

    python benchmarks/encode_gpu.py [--model minilm|bert-base] [--checkpoint FOLDER] [--data FILE…] [--sentences N]
                                    [--contestants NAME …] [--rounds N] [--device D] [--json] [--out FILE] [--short]

Networks of MiniLM-L6's or BERT-base's size with random weights, input C+M, at most 64 word pieces, the mean hidden
state of each sentence. "PyTorch" is transformers' BertModel in bfloat16 with scaled_dot_product_attention, the
sentences sorted by length and padded to the longest of a batch; it gets the token ids that relpt's core makes. The
contestants "from text" also tokenize: sentence-transformers in bfloat16 by its ``encode``, relpt by ``Encoder.encode``.
Few sentences (--sentences 1 is the time that one takes) go as CUDA graphs where that is faster; "relpt direct", which
has to be named, makes none. The opponents take the number of sentences a batch that proves fastest when they start.
``cosine`` is the lowest one, over the sentences, to relpt's vectors in float32. Times, the host's part included, are
those between CUDA events before and behind.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from contest import contest, turns
from encode_cpu import MAX_LENGTH, bert, lowest_cosine
from report import add_data, dataset, installed, options_of, publish, ranged, spread
from stopwatch import Stop, stopwatch
from train_cpu import BERT_BASE, write_random

OURS = {"relpt bfloat16": "bfloat16", "relpt float32": "float32", "relpt direct": "bfloat16"}
FROM_TEXT = ["relpt from text", "sentence-transformers from text"]
EVERYONE = [*OURS, "PyTorch bfloat16", *FROM_TEXT]
DEFAULT = [name for name in EVERYONE if name != "relpt direct"]
NEEDS = {"PyTorch": ("torch", "transformers"), "sentence-transformers": ("sentence_transformers",)}
BATCH_SIZES = (64, 256, 1024, 4096)


def chosen(options: argparse.Namespace):
    """--sentences sentences, spread evenly over the data, again and again where it has fewer."""
    data = dataset(options.data)
    rows = np.linspace(0, len(data) - 1, options.sentences) if options.sentences <= len(data) else None
    numbers = np.arange(options.sentences) % len(data) if rows is None else rows.astype(int)
    return data[[int(i) for i in numbers]]


def make_relpt(folder: Path, options: argparse.Namespace, name: str) -> Callable[[], np.ndarray]:
    import relpt

    dtype = OURS.get(name, "bfloat16")
    encoder = relpt.Encoder.from_pretrained(folder, representation="mean", device=options.device, dtype=dtype)
    data: object = chosen(options)
    if name not in FROM_TEXT:
        data = data.tokenize(encoder, max_length=MAX_LENGTH, show_progress_bar=False)
    return lambda: encoder.encode(data, max_length=MAX_LENGTH, show_progress_bar=False)


def token_ids(folder: Path, options: argparse.Namespace) -> list[np.ndarray]:
    """The token ids of each sentence as relpt's core gives them, with all special tokens."""
    import relpt
    from relpt import _core

    encoder = relpt.Encoder.from_pretrained(folder)
    corpus = chosen(options).tokenize(encoder, max_length=MAX_LENGTH, show_progress_bar=False)
    batch = _core.build_batch(corpus.core(), encoder._tokens, np.arange(len(corpus)), 0, MAX_LENGTH)
    return np.split(batch["ids"].astype(np.int64), batch["cu_seqlens"][1:-1])


def make_torch(folder: Path, options: argparse.Namespace) -> Callable[[], np.ndarray]:
    import torch

    sentences = token_ids(folder, options)
    lengths = np.array([len(ids) for ids in sentences])
    order = np.argsort(-lengths, kind="stable")
    model = bert(folder, "sdpa").to(options.device, torch.bfloat16)

    @torch.inference_mode()
    def encode(size: int) -> np.ndarray:
        means = []
        for part in np.split(order, range(size, len(order), size)):
            mask = np.arange(lengths[part[0]]) < lengths[part, None]
            ids = np.zeros(mask.shape, np.int64)
            ids[mask] = np.concatenate([sentences[i] for i in part])
            there = torch.from_numpy(mask).to(options.device)
            states = model(input_ids=torch.from_numpy(ids).to(options.device), attention_mask=there).last_hidden_state
            means.append((states.float() * there[..., None]).sum(1) / there.sum(1)[:, None])
        return torch.cat(means).cpu().numpy()[np.argsort(order)]

    return partial(encode, fastest(encode, stopwatch("torch", options.device)))


def make_sentence_transformers(folder: Path, options: argparse.Namespace) -> Callable[[], np.ndarray]:
    import torch
    from sentence_transformers import SentenceTransformer, models

    part = models.Transformer(str(folder), max_seq_length=MAX_LENGTH)
    pooling = models.Pooling(part.get_word_embedding_dimension(), "mean")
    model = SentenceTransformer(modules=[part, pooling], device=options.device).to(torch.bfloat16)
    texts = [instance.text for instance in chosen(options)]

    def encode(size: int) -> np.ndarray:
        return model.encode(texts, batch_size=size, show_progress_bar=False)

    return partial(encode, fastest(encode, stopwatch("torch", options.device)))


def fastest(work: Callable[[int], object], start: Callable[[], Stop]) -> int:
    """The batch size of the shortest run, after one that is not timed."""
    work(BATCH_SIZES[0])
    seconds = {}
    for size in BATCH_SIZES:
        stop = start()
        work(size)
        seconds[size] = stop()
    return min(seconds, key=seconds.__getitem__)


def contestant(folder: Path, options: argparse.Namespace, name: str) -> Callable[[int], tuple[float, np.ndarray]]:
    """Encodes all sentences, and says how many seconds that took and what came out."""
    warnings.simplefilter("ignore")
    if name.startswith("relpt"):
        os.environ["RELPT_CUDA_GRAPHS"] = "0" if name == "relpt direct" else "auto"
        encode = make_relpt(folder, options, name)
    elif name.startswith("PyTorch"):
        encode = make_torch(folder, options)
    else:
        encode = make_sentence_transformers(folder, options)
    for _ in range(10 if options.sentences <= 64 else 1):  # few sentences try CUDA graphs out first
        encode()

    start = stopwatch("relpt" if name.startswith("relpt") else "torch", options.device)

    def work(_: int) -> tuple[float, np.ndarray]:
        stop = start()
        found = encode()
        return stop(), found

    return work


def measure(names: list[str], options: argparse.Namespace, folder: Path) -> list[dict]:
    """One row per contestant."""
    speeds: dict[str, list[float]] = {name: [] for name in names}
    found = {}
    with contest(names, partial(contestant, folder, options)) as ask:
        for number, name in turns(names, options.rounds):
            seconds, found[name] = ask(name, number)
            speeds[name].append(len(found[name]) / seconds)
            print(f"round {number + 1}/{options.rounds} {name}: {speeds[name][-1]:.1f}", file=sys.stderr)
    rows = []
    for name in names:
        ours = "relpt from text" if name in FROM_TEXT else "relpt bfloat16"
        row = {"contestant": name, "sentences_per_second": spread(speeds[name])}
        if ours in names:
            row["relpt_is_faster_by"] = spread(speeds[ours])["median"] / row["sentences_per_second"]["median"]
        if "relpt float32" in names and name not in FROM_TEXT:
            row["lowest_cosine"] = lowest_cosine(found["relpt float32"], found[name])
        rows.append(row)
    return rows


def main() -> int:
    parser = options_of(__doc__, rounds=7, short="3 rounds of 2,048 sentences")
    add_data(parser)
    parser.add_argument("--model", choices=("minilm", "bert-base"), default="minilm")
    parser.add_argument("--checkpoint", type=Path, help="a folder with MiniLM's config.json and tokenizer.json")
    parser.add_argument("--contestants", nargs="+", choices=EVERYONE, default=DEFAULT, metavar="NAME")
    parser.add_argument("--sentences", type=int, default=32_768, help="of the data, spread evenly")
    parser.add_argument("--device", default="cuda", help="cpu, to try the script")
    options = parser.parse_args()
    if options.short:
        options.rounds, options.sentences = 3, 2048
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_random(folder, BERT_BASE if options.model == "bert-base" else {}, options.checkpoint)
        rows = measure(installed(options.contestants, NEEDS), options, folder)
    lines = [
        [
            row["contestant"],
            *ranged(row["sentences_per_second"]),
            *(f"{row[key]:.{digits}f}" if key in row else "–" for key, digits in
              (("relpt_is_faster_by", 2), ("lowest_cosine", 4))),
        ]
        for row in rows
    ]  # fmt: skip
    publish(
        options,
        title=f"Encoding, {options.model}, {options.sentences} sentences",
        head=["", "sentences/s", "range", "relpt / it", "cosine"],
        lines=lines,
        rows=rows,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
