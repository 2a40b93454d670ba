"""Text to corpus, corpus to batches: relpt against the tokenizers library alone, and against the training step.

    python benchmarks/corpus_cpu.py [--data FILE…] [--sentences N] [--rounds N] [--threads N] [--json] [--out FILE]
                                    [--short]

- tokenizers: ``encode_batch`` of the sentences, whose encodings nobody reads: the speed that a corpus cannot exceed.
- relpt: ``Dataset.tokenize`` (word pieces, and the mentions aligned to them) and ``Corpus.save``.
- open: ``Corpus.open`` by mmap, in milliseconds.
- sampler: assembled batches of 64 sentences (``CPTrainer``'s input settings, blanking and masking), on one thread; and
  training steps of MiniLM-L6 on them, in bfloat16 where the CPU has it, for the ratio.

The data's sentences are repeated up to --sentences.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from contest import turns
from report import add_data, dataset, options_of, publish, ranged, spread

CHUNK = 2048  # sentences handed to the library at a time


def seconds(work: Callable[..., object], arguments: Iterable[object]) -> float:
    """Of calls with one argument each."""
    begin = time.perf_counter()
    for argument in arguments:
        work(argument)
    return time.perf_counter() - begin


def main() -> int:
    parser = options_of(__doc__, rounds=3, short="1 round of 20,000 sentences")
    add_data(parser)
    parser.add_argument("--sentences", type=int, default=1_000_000)
    options = parser.parse_args()
    if options.short:
        options.rounds, options.sentences = 1, 20_000
    import relpt
    from relpt import _core

    warnings.simplefilter("ignore", relpt.TruncationWarning)
    dtype = "bfloat16" if _core.cpu_info()["bfloat16"] else "float32"
    encoder = relpt.Encoder.from_pretrained("minilm", num_threads=options.threads, dtype=dtype)
    data = relpt.load(list(islice(cycle(dataset(options.data)), options.sentences)))
    texts = [instance.text for instance in data]
    found: dict[str, list[float]] = {name: [] for name in ("tokenizers", "relpt", "open", "sampler", "step")}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "corpus"

        work = {
            "tokenizers": lambda first: encoder.tokenizer.encode_batch(
                texts[first : first + CHUNK], add_special_tokens=False
            ),
            "relpt": lambda _: data.tokenize(encoder, show_progress_bar=False).save(place),
        }
        calls = {"tokenizers": range(0, len(texts), CHUNK), "relpt": range(1)}
        for number, name in turns(["tokenizers", "relpt"], options.rounds):
            found[name].append(len(texts) / seconds(work[name], calls[name]))
            print(f"round {number + 1}/{options.rounds} {name}: {found[name][-1]:.0f}", file=sys.stderr)
        owner = relpt.CPTrainer(encoder, pairs_per_step=32, max_steps=10**6, prefetch=False)
        for _ in range(max(options.rounds, 3)):
            found["open"].append(1000 * seconds(relpt.Corpus.open, [place]))
        sampler = owner._sampler(relpt.Corpus.open(place))
        trainer = _core.Trainer(**owner._core_options(32))
        trainer.step(sampler, 0)
        for number in range(options.rounds):
            steps = range(1 + 100 * number, 101 + 100 * number)
            found["sampler"].append(6400 / seconds(sampler.batch, steps))
            found["step"].append(256 / seconds(partial(trainer.step, sampler), steps[:4]))
    rows = [{"contestant": name, "found": spread(values)} for name, values in found.items()]
    names = {
        "tokenizers": "tokenizers alone, sentences/s",
        "relpt": "relpt, tokenized, aligned and saved, sentences/s",
        "open": "relpt, opened, ms",
        "sampler": "relpt, batches assembled, sentences/s",
        "step": f"relpt, trained in {dtype}, sentences/s",
    }
    publish(
        options,
        title=f"A corpus of {len(texts):,} sentences",
        head=["", "median", "range"],
        lines=[[names[row["contestant"]], *ranged(row["found"], 0)] for row in rows],
        rows=rows,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
