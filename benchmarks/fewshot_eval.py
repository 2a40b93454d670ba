"""Seconds for FewRel's four few-shot settings: each instance encoded once, against every episode encoded anew.

    python benchmarks/fewshot_eval.py [--data FILE…] [--episodes N] [--contestants NAME …] [--rounds N] [--threads N]
                                      [--json] [--out FILE] [--short]

5 and 10 ways, 1 and 5 shots, 10,000 episodes each with one query a way; MiniLM-L6, C+M, start markers, prototypes by
cosine. relpt encodes each instance once and scores the episodes from the table of vectors; a setting's seconds are
those of encoding and its scoring, and all four settings share one encoding. The opponent does as the published FewRel
toolkit: supports and queries of an episode are one padded batch of transformers' BertModel (its SDPA attention, under
inference_mode), here padded to the episode's longest sentence and no further. It is timed on --episodes episodes of
each setting in each round, and its seconds are multiplied up to 10,000.

Both sides get the same word pieces, tokenized before, and the same episodes; ``agree``: the share of the timed episodes
of which relpt in float32 finds the same accuracy.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
from contest import contest, turns
from encode_cpu import bert
from report import add_data, dataset, installed, options_of, publish, ranged, spread

SETTINGS = [(5, 1), (5, 5), (10, 1), (10, 5)]  # ways, shots
CONTESTANTS = ["relpt float32", "relpt bfloat16", "PyTorch float32", "PyTorch bfloat16"]
NEEDS = {"PyTorch": ("torch", "transformers")}
EPISODES = 10_000
MAX_LENGTH = 128

Answer = dict[tuple[int, int] | str, object]  # seconds and accuracies of each setting; relpt's "encoding"


def encoder_and_corpus(options: argparse.Namespace, dtype: str = "float32"):
    import relpt

    warnings.simplefilter("ignore", relpt.TruncationWarning)
    encoder = relpt.Encoder.from_pretrained(
        "minilm", representation="entity_start", dtype=dtype, num_threads=options.threads
    )
    return encoder, dataset(options.data).tokenize(encoder, max_length=MAX_LENGTH, show_progress_bar=False)


def make_relpt(options: argparse.Namespace, dtype: str) -> Callable[[int], Answer]:
    import relpt

    encoder, corpus = encoder_and_corpus(options, dtype)

    def work(_: int) -> Answer:
        begin = time.perf_counter()
        vectors = encoder.encode(corpus, max_length=MAX_LENGTH, show_progress_bar=False)
        answer: Answer = {"encoding": time.perf_counter() - begin}
        for way, shot in SETTINGS:
            task = relpt.FewShot(n_way=way, k_shot=shot, episodes=EPISODES)
            begin = time.perf_counter()
            result = task.score(vectors, corpus.relation, num_threads=options.threads)
            answer[way, shot] = time.perf_counter() - begin, result.per_episode
        return answer

    return work


def make_torch(options: argparse.Namespace, dtype: str) -> Callable[[int], Answer]:
    import torch
    import torch.nn.functional as F

    from relpt import _core
    from relpt.weights import find_folder

    torch.set_num_threads(options.threads)
    encoder, corpus = encoder_and_corpus(options)
    labels = np.unique(corpus.relation, return_inverse=True)[1].astype(np.int32)
    model = bert(find_folder("minilm"), "sdpa").to(getattr(torch, dtype))

    def encode(rows: np.ndarray) -> torch.Tensor:
        batch = _core.build_batch(corpus.core(), encoder._tokens, rows, 0, MAX_LENGTH)
        starts, lengths = batch["cu_seqlens"][:-1], np.diff(batch["cu_seqlens"])
        mask = np.arange(lengths.max()) < lengths[:, None]
        ids = np.zeros(mask.shape, np.int64)
        ids[mask] = batch["ids"]
        states = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).last_hidden_state
        every = torch.arange(len(rows))
        marks = (torch.from_numpy((batch[name] - starts).astype(np.int64)) for name in ("head", "tail"))
        return torch.cat([states[every, mark] for mark in marks], 1).float()

    def episode(support: np.ndarray, query: np.ndarray) -> float:
        way, shot = support.shape
        vectors = encode(np.concatenate([support.ravel(), query.ravel()]))
        prototypes = vectors[: way * shot].view(way, shot, -1).mean(1)
        scores = F.normalize(vectors[way * shot :]) @ F.normalize(prototypes).T
        own = torch.arange(way).repeat_interleave(query.shape[1])
        return (scores.argmax(1) == own).double().mean().item()

    @torch.inference_mode()
    def work(number: int) -> Answer:
        answer: Answer = {}
        for way, shot in SETTINGS:
            first, count = number * options.episodes, options.episodes
            drawn = _core.draw_episodes(labels, int(labels.max()) + 1, way, shot, 1, 42, first, count)
            begin = time.perf_counter()
            accuracy = [episode(*rows) for rows in zip(*drawn, strict=True)]
            answer[way, shot] = (time.perf_counter() - begin) / count * EPISODES, np.array(accuracy)
        return answer

    work(0)  # warms up
    return work


def contestant(options: argparse.Namespace, name: str) -> Callable[[int], Answer]:
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    library, dtype = name.split()
    return (make_relpt if library == "relpt" else make_torch)(options, dtype)


def measure(names: list[str], options: argparse.Namespace) -> list[dict]:
    """One row per contestant."""
    answers: dict[str, list[Answer]] = {name: [] for name in names}
    with contest(names, partial(contestant, options)) as ask:
        for number, name in turns(names, options.rounds):
            answers[name].append(ask(name, number))
            print(f"round {number + 1}/{options.rounds} {name}: {total(answers[name][-1]):.1f} s", file=sys.stderr)
    rows = []
    for name, found in answers.items():
        alone = {s: [answer.get("encoding", 0) + answer[s][0] for answer in found] for s in SETTINGS}
        row = {
            "contestant": name,
            "seconds": {f"{way}-way {shot}-shot": spread(alone[way, shot]) for way, shot in SETTINGS},
            "all_four": spread([total(answer) for answer in found]),
        }
        if "relpt float32" in answers:
            ours = answers["relpt float32"]
            row["relpt_is_faster_by"] = row["all_four"]["median"] / statistics.median(map(total, ours))
            row["agree"] = agreement(ours[0], found, options.episodes)
        rows.append(row)
    return rows


def total(answer: Answer) -> float:
    """Seconds of all four settings."""
    return answer.get("encoding", 0) + sum(answer[setting][0] for setting in SETTINGS)


def agreement(ours: Answer, found: list[Answer], episodes: int) -> float:
    """The share of episodes with the accuracy that relpt finds."""
    same = []
    for number, answer in enumerate(found):
        first = 0 if "encoding" in answer else number * episodes
        for setting in SETTINGS:
            theirs = answer[setting][1]
            same.append(np.isclose(ours[setting][1][first : first + len(theirs)], theirs))
    return float(np.concatenate(same).mean())


def main() -> int:
    parser = options_of(__doc__, rounds=5, short="2 rounds of 5 episodes")
    add_data(parser)
    parser.add_argument("--episodes", type=int, default=20, help="of each setting that the opponent is timed on")
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=CONTESTANTS, metavar="NAME")
    options = parser.parse_args()
    if options.short:
        options.rounds, options.episodes = 2, 5
    if options.rounds * options.episodes > EPISODES:
        parser.error(f"--rounds times --episodes is above {EPISODES}")
    rows = measure(installed(options.contestants, NEEDS), options)
    lines = [
        [
            row["contestant"],
            *(f"{found['median']:.1f}" for found in row["seconds"].values()),
            *ranged(row["all_four"]),
            f"{row['relpt_is_faster_by']:,.1f}" if "relpt_is_faster_by" in row else "–",
            f"{row['agree']:.3f}" if "agree" in row else "–",
        ]
        for row in rows
    ]
    publish(
        options,
        title=(
            f"Few-shot evaluation, seconds for {EPISODES:,} episodes of each setting, encoding included; "
            f"PyTorch: {options.episodes} episodes a round, multiplied up"
        ),
        head=["", *rows[0]["seconds"], "all four", "range", "it / relpt float32", "agree"],
        lines=lines,
        rows=rows,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
