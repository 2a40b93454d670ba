"""The CNN and the PCNN against a plain one in PyTorch, in float64: vectors, and the gradient of every parameter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cnn_formula import BARE, config_of, distances, some_arrays, struct_of, words_of
from corpora import CM, CT, OC, OM, OT
from network import Network, SgdOptions

pytestmark = pytest.mark.oracle
ENDS, RANDOM = some_arrays(seed=9, n=30)
FORMS = {
    "cnn": {},
    "pcnn": {"piecewise": True},
    "cnn-relu-tags": {"activation": 1, "pos_size": 3, "ner_size": 2},
    "pcnn-tags-window-5": {"piecewise": True, "window": 5, "pos_size": 2, "ner_size": 2},
}


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


def plain_cnn(torch: Any, config: dict[str, Any]) -> Any:
    """Padded sentences, torch.nn.Conv1d, masked maxima: as the field's code has it."""

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            c, places = config, 2 * config["max_distance"] + 1
            self.word = torch.nn.Embedding(c["vocab_size"], c["word_size"])
            self.head = torch.nn.Embedding(places, c["position_size"])
            self.tail = torch.nn.Embedding(places, c["position_size"])
            sizes = [(c[f"{k}_tags"], c[f"{k}_size"]) for k in ("pos", "ner")]
            self.tags = torch.nn.ModuleList([torch.nn.Embedding(n, size) for n, size in sizes if size])
            self.read = [k for k, (_, size) in enumerate(sizes) if size]
            width = c["word_size"] + 2 * c["position_size"] + sum(size for _, size in sizes)
            self.conv = torch.nn.Conv1d(width, c["hidden_size"], c["window"], padding=c["window"] // 2)

        def forward(self, sentences: list[Any]) -> Any:
            longest = max(len(ids) for ids, *_ in sentences)
            columns = torch.zeros(5, len(sentences), longest, dtype=torch.long)
            piece = torch.full((len(sentences), longest), -1)
            for s, (ids, tags, head, tail) in enumerate(sentences):
                n = len(ids)
                near = [distances(n, span, config["max_distance"]) for span in (head, tail)]
                columns[:, s, :n] = torch.tensor(np.stack([ids, *near, *tags]))
                first, second = sorted((head[1], tail[1]))
                piece[s, :n] = torch.tensor([(t >= first) + (t >= second) for t in range(n)])
            inside = (piece >= 0)[:, :, None]
            x = [self.word(columns[0]), self.head(columns[1]), self.tail(columns[2])]
            x += [table(columns[3 + k]) for table, k in zip(self.tags, self.read, strict=True)]
            states = self.conv((torch.cat(x, 2) * inside).transpose(1, 2)).transpose(1, 2)
            masks = [piece == k for k in range(3)] if config["piecewise"] else [piece >= 0]
            pooled = [states.masked_fill(~mask[:, :, None], -torch.inf).amax(1) for mask in masks]
            pooled = [torch.where(torch.isinf(p), torch.zeros_like(p), p) for p in pooled]
            return (torch.tanh if config["activation"] == 0 else torch.relu)(torch.cat(pooled, 1))

    return Plain().double()


def names_of(config: dict[str, Any], plain: Any) -> dict[str, Any]:
    """PyTorch's parameters under the core's names."""
    tables = [name for name in ("pos", "ner") if config[f"{name}_size"]]
    return {
        "word_embeddings.weight": plain.word.weight,
        "head_position_embeddings.weight": plain.head.weight,
        "tail_position_embeddings.weight": plain.tail.weight,
        **{f"{name}_embeddings.weight": table.weight for name, table in zip(tables, plain.tags, strict=True)},
        "convolution.weight": plain.conv.weight,
        "convolution.bias": plain.conv.bias,
    }


def ours(name: str, value: Any) -> np.ndarray:
    """A parameter in the core's shape: the window's places one after another."""
    value = value.detach().numpy()
    return value.transpose(0, 2, 1).reshape(len(value), -1) if name == "convolution.weight" else value


def theirs(torch: Any, name: str, value: np.ndarray, like: Any) -> Any:
    value = value.astype(np.float64)
    if name == "convolution.weight":
        outputs, inputs, window = like.shape
        value = value.reshape(outputs, window, inputs).transpose(0, 2, 1)
    return torch.tensor(np.ascontiguousarray(value))


def same_values(torch: Any, config: dict[str, Any], network: Network) -> tuple[Any, dict[str, Any]]:
    plain = plain_cnn(torch, config)
    named = names_of(config, plain)
    bias = network.part(network.values, "convolution.bias")
    bias[...] = np.random.default_rng(0).normal(0, 0.3, bias.shape)
    with torch.no_grad():
        for name, value in network.parts(network.values).items():
            named[name].copy_(theirs(torch, name, value, named[name]))
    assert set(named) == set(network.table)
    return plain, named


@pytest.mark.parametrize("setting", [CM, CT, OC, OM, OT])
@pytest.mark.parametrize("backend", ["ref", "cpu"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_vectors_and_gradients(torch: Any, form: dict[str, Any], backend: str, setting: int) -> None:
    config, rows = config_of(**form), range(30)
    sentences = [words_of(RANDOM, row, setting) for row in rows]
    with Network(struct_of(config), 4, backend=backend, num_threads=2) as network:
        plain, named = same_values(torch, config, network)
        got, want = network.forward(RANDOM, BARE, rows, setting), plain(sentences)
        assert np.abs(got - want.detach().numpy()).max() <= 2e-6
        dvectors = np.random.default_rng(1).normal(size=got.shape).astype(np.float32)
        want.backward(torch.tensor(dvectors, dtype=torch.float64))
        for name, gradient in network.parts(network.backward(dvectors)).items():
            wanted = ours(name, named[name].grad)
            assert np.abs(gradient - wanted).max() <= 2e-6 * max(1, np.abs(wanted).max()), name


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.01)])
@pytest.mark.parametrize("piecewise", [False, True])
def test_training_by_sgd(torch: Any, piecewise: bool, momentum: float, weight_decay: float) -> None:
    """Ten updates at the paper's learning rate 0.5, towards given vectors."""
    config, rows = config_of(piecewise=piecewise, pos_size=2), range(12)
    sentences = [words_of(ENDS, row) for row in rows]
    options = SgdOptions(momentum, weight_decay, 0)
    with Network(struct_of(config), 4, backend="cpu") as network:
        plain, named = same_values(torch, config, network)
        spared = [named["convolution.bias"]]
        decayed = [value for value in named.values() if value is not spared[0]]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]
        optimizer = torch.optim.SGD(groups, lr=0.5 if momentum == 0 else 0.05, momentum=momentum)
        moments = np.zeros(network.params.total, np.float32) if momentum else None
        goal, losses = None, []
        for _ in range(10):
            got = network.forward(ENDS, BARE, rows, CM)
            goal = np.random.default_rng(2).normal(0, 0.5, got.shape).astype(np.float32) if goal is None else goal
            losses.append(float(((got - goal) ** 2).sum() / 24))
            network.sgd(network.backward((got - goal) / 12), options, optimizer.param_groups[0]["lr"], 0.0, moments)
            optimizer.zero_grad()
            (((plain(sentences) - torch.tensor(goal, dtype=torch.float64)) ** 2).sum() / 24).backward()
            optimizer.step()
        for name, value in network.parts(network.values).items():
            assert np.abs(value - ours(name, named[name])).max() <= 2e-5, name
    assert losses[-1] < 0.7 * losses[0]
