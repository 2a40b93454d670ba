"""Encoding speed of relpt against PyTorch, CTranslate2, ONNX Runtime and sentence-transformers, in alternating runs.

    python benchmarks/encode_cpu.py [--data FILE…] [--representation R] [--contestants NAME …] [--sentences N]
                                    [--rounds N] [--threads N] [--json] [--out FILE] [--short]

MiniLM-L6, input C+M, at most 64 word pieces. The contestants' names say what they compute in:

- relpt: ``Encoder.encode`` on the tokenized corpus, in float32, bfloat16 and int8.
- PyTorch: transformers' BertModel with scaled_dot_product_attention under inference_mode; in bfloat16 the weights are
  bfloat16 too, which is faster than autocast.
- CTranslate2: ``Encoder.forward_batch`` of the checkpoint as its own converter writes it; int8 by its compute type.
- ONNX Runtime: the same BertModel as PyTorch exports it; int8 by ``quantize_dynamic`` with a scale per channel.

All these get the same token ids and give the same vectors: with "entity_start" the relation vector, the last hidden
states of the two start markers, for which relpt computes two rows a sentence of the last layer and the opponents,
whose models know no markers, all; with "mean" the mean over each sentence, for which all need every state. Sorting by
length, padding and picking or averaging are timed. The opponents take the number of sentences a batch that proves
fastest when they start. ``cosine`` is the lowest one, over the sentences, to relpt's vectors in float32.

The contestants "from text" also tokenize: sentence-transformers the plain sentences by its ``encode``, which also
divides the means by their length, relpt the same with the four entity markers, by ``Encoder.encode``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from contest import contest, turns
from report import add_data, dataset, installed, options_of, publish, ranged, spread

OURS = ["relpt float32", "relpt bfloat16", "relpt int8"]
OPPONENTS = [
    "PyTorch float32",
    "PyTorch bfloat16",
    "CTranslate2 float32",
    "CTranslate2 int8",
    "ONNX-Runtime float32",
    "ONNX-Runtime int8",
]
FROM_TEXT = ["relpt from text", "sentence-transformers from text"]
NEEDS = {
    "PyTorch": ("torch", "transformers"),
    "CTranslate2": ("ctranslate2", "torch", "transformers"),
    "ONNX-Runtime": ("onnxruntime", "onnx", "torch", "transformers"),
    "sentence-transformers": ("sentence_transformers",),
}
os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
BATCH_SIZES = (8, 16, 32, 64)
MAX_LENGTH = 64
REPRESENTATIONS = ("entity_start", "mean")

Hidden = Callable[[np.ndarray, np.ndarray], np.ndarray]  # ids (n, width), mask (n, width) -> states (n, width, H)


# -- the contestants: each is a function without arguments that gives the vectors --------------------------------------


def make_relpt(options: argparse.Namespace, name: str) -> Callable[[], np.ndarray]:
    import relpt

    kind = name.removeprefix("relpt ")
    encoder = relpt.Encoder.from_pretrained(
        "minilm",
        representation="mean" if kind == "from text" else options.representation,
        dtype="bfloat16" if kind == "bfloat16" else "float32",
        num_threads=options.threads,
    )
    data: object = chosen(options)
    if kind != "from text":
        data = data.tokenize(encoder, max_length=MAX_LENGTH, show_progress_bar=False)
    further = {"dtype": "int8"} if kind == "int8" else {}
    return lambda: encoder.encode(data, max_length=MAX_LENGTH, show_progress_bar=False, **further)


def make_opponent(options: argparse.Namespace, name: str, folder: Path) -> Callable[[], np.ndarray]:
    """The library's hidden states, in batches of sentences of near-equal length."""
    library, dtype = name.split()
    make = {"PyTorch": torch_states, "CTranslate2": ctranslate2_states, "ONNX-Runtime": onnx_states}[library]
    hidden = make(folder, dtype, options.threads)
    sentences, markers = token_ids(options)
    some, pick = slice(None, None, max(1, len(sentences) // 256)), options.representation == "entity_start"
    size = fastest(lambda size: vectors(hidden, sentences[some], markers[some] if pick else None, size))
    print(f"{name}: {size} sentences a batch", file=sys.stderr)
    return lambda: vectors(hidden, sentences, markers if pick else None, size)


def make_sentence_transformers(options: argparse.Namespace, folder: Path) -> Callable[[], np.ndarray]:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(options.threads)
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    model.max_seq_length = MAX_LENGTH
    texts = [instance.text for instance in chosen(options)]

    def encode(texts: list[str], size: int) -> np.ndarray:
        return model.encode(texts, batch_size=size, show_progress_bar=False)

    size = fastest(lambda size: encode(texts[:: max(1, len(texts) // 256)], size))
    return lambda: encode(texts, size)


def torch_states(folder: Path, dtype: str, threads: int) -> Hidden:
    import torch

    torch.set_num_threads(threads)
    model = bert(folder, "sdpa").to(getattr(torch, dtype))

    @torch.inference_mode()
    def hidden(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        attention_mask = None if mask.all() else torch.from_numpy(mask)
        states = model(input_ids=torch.from_numpy(ids), attention_mask=attention_mask).last_hidden_state
        return states.float().numpy()

    return hidden


def ctranslate2_states(folder: Path, dtype: str, threads: int) -> Hidden:
    import ctranslate2

    with tempfile.TemporaryDirectory() as temporary:
        converted = ctranslate2.converters.TransformersConverter(str(folder)).convert(f"{temporary}/model")
        model = ctranslate2.Encoder(converted, device="cpu", compute_type=dtype, inter_threads=1, intra_threads=threads)

    def hidden(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        arrays = ids.astype(np.int32), mask.sum(1, dtype=np.int32)
        batch, lengths = (ctranslate2.StorageView.from_array(array) for array in arrays)
        return np.array(model.forward_batch(batch, lengths=lengths).last_hidden_state)

    return hidden


def onnx_states(folder: Path, dtype: str, threads: int) -> Hidden:
    import onnxruntime
    import torch
    from onnxruntime.quantization import quantize_dynamic

    class States(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = bert(folder, "eager")

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=ids, attention_mask=mask).last_hidden_state

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = threads, 1
    with tempfile.TemporaryDirectory() as temporary:
        path, example = f"{temporary}/float32.onnx", torch.ones(2, 8, dtype=torch.long)
        names = ["ids", "mask", "states"]
        axes = {name: {0: "sentences", 1: "width"} for name in names}
        torch.onnx.export(
            States(), (example, example), path, input_names=names[:2], output_names=names[2:], dynamic_axes=axes,
            dynamo=False,
        )  # fmt: skip
        if dtype == "int8":
            quantize_dynamic(path, path := f"{temporary}/int8.onnx", per_channel=True)
        session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    return lambda ids, mask: session.run(None, {"ids": ids, "mask": mask.astype(np.int64)})[0]


# -- what they share ---------------------------------------------------------------------------------------------------


def chosen(options: argparse.Namespace):
    """--sentences sentences, spread evenly over the data."""
    data = dataset(options.data)
    return data[[int(i) for i in np.linspace(0, len(data) - 1, min(options.sentences, len(data)))]]


def token_ids(options: argparse.Namespace) -> tuple[list[np.ndarray], np.ndarray]:
    """The token ids of each sentence as relpt's core gives them, with all special tokens, and where the start markers
    stand (n,2)."""
    import relpt
    from relpt import _core

    encoder = relpt.Encoder.from_pretrained("minilm")
    corpus = chosen(options).tokenize(encoder, max_length=MAX_LENGTH, show_progress_bar=False)
    batch = _core.build_batch(corpus.core(), encoder._tokens, np.arange(len(corpus)), 0, MAX_LENGTH)
    markers = np.stack([batch["head"], batch["tail"]], 1) - batch["cu_seqlens"][:-1, None]
    return np.split(batch["ids"].astype(np.int64), batch["cu_seqlens"][1:-1]), markers


def bert(folder: Path, attention: str):
    """transformers' BertModel, ready to encode."""
    from transformers import BertModel

    return BertModel.from_pretrained(folder, attn_implementation=attention, add_pooling_layer=False).eval()


def vectors(hidden: Hidden, sentences: list[np.ndarray], markers: np.ndarray | None, size: int) -> np.ndarray:
    """The hidden states at the markers of each sentence, or their mean over it, computed in batches of ``size``, the
    longest sentences first."""
    lengths = np.array([len(ids) for ids in sentences])
    order = np.argsort(-lengths, kind="stable")
    found = []
    for part in np.split(order, range(size, len(order), size)):
        mask = np.arange(lengths[part[0]]) < lengths[part, None]
        ids = np.zeros(mask.shape, np.int64)
        ids[mask] = np.concatenate([sentences[i] for i in part])
        states = hidden(ids, mask)
        if markers is None:
            found.append(np.einsum("nwh,nw->nh", states, mask.astype(np.float32)) / lengths[part, None])
        else:
            found.append(states[np.arange(len(part))[:, None], markers[part]].reshape(len(part), -1))
    return np.concatenate(found)[np.argsort(order)]


def fastest(work: Callable[[int], object]) -> int:
    """The batch size of the shortest run, after one that is not timed."""
    work(BATCH_SIZES[-1])
    seconds = {}
    for size in BATCH_SIZES:
        begin = time.perf_counter()
        work(size)
        seconds[size] = time.perf_counter() - begin
    return min(seconds, key=seconds.__getitem__)


def contestant(options: argparse.Namespace, name: str) -> Callable[[int], tuple[float, np.ndarray]]:
    """Encodes all sentences, and says how many seconds that took and what came out."""
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    warnings.simplefilter("ignore")
    from relpt.weights import find_folder

    if name.startswith("relpt"):
        encode = make_relpt(options, name)
    elif name in OPPONENTS:
        encode = make_opponent(options, name, find_folder("minilm"))
    else:
        encode = make_sentence_transformers(options, find_folder("minilm"))
    encode()

    def work(_: int) -> tuple[float, np.ndarray]:
        begin = time.perf_counter()
        found = encode()
        return time.perf_counter() - begin, found

    return work


# -- the table ---------------------------------------------------------------------------------------------------------


def lowest_cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return float((a * b).sum(1).min())


def measure(names: list[str], options: argparse.Namespace) -> list[dict]:
    """One row per contestant."""
    speeds: dict[str, list[float]] = {name: [] for name in names}
    found = {}
    with contest(names, partial(contestant, options)) as ask:
        for number, name in turns(names, options.rounds):
            seconds, found[name] = ask(name, number)
            speeds[name].append(len(found[name]) / seconds)
            print(f"round {number + 1}/{options.rounds} {name}: {speeds[name][-1]:.1f}", file=sys.stderr)
    rows = []
    for name in names:
        ours = "relpt from text" if name in FROM_TEXT else "relpt float32"
        row = {"contestant": name, "sentences_per_second": spread(speeds[name])}
        if ours in names:
            row["relpt_is_faster_by"] = spread(speeds[ours])["median"] / row["sentences_per_second"]["median"]
        if ours in names and name not in FROM_TEXT:
            row["lowest_cosine"] = lowest_cosine(found[ours], found[name])
        rows.append(row)
    return rows


def main() -> int:
    parser = options_of(__doc__, rounds=7, short="3 rounds of 256 sentences")
    add_data(parser)
    everyone = [*OURS, *OPPONENTS, *FROM_TEXT]
    parser.add_argument("--contestants", nargs="+", choices=everyone, default=everyone, metavar="NAME")
    parser.add_argument("--representation", choices=REPRESENTATIONS, default=REPRESENTATIONS[0])
    parser.add_argument("--sentences", type=int, default=1000, help="of the data, spread evenly")
    options = parser.parse_args()
    if options.short:
        options.rounds, options.sentences = 3, 256
    rows = measure(installed(options.contestants, NEEDS), options)
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
        title=f"Encoding, MiniLM-L6, {options.representation} of {options.sentences} sentences",
        head=["", "sentences/s", "range", "relpt float32 / it", "cosine"],
        lines=lines,
        rows=rows,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
