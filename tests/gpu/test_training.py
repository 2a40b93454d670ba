"""Everything that trains, on the CUDA back end against the CPU: the same figures of each step, but for rounding."""

from pathlib import Path

import numpy as np
import pytest
from objective_data import graph_of, records_with_entities
from oracle import tiny_bert
from test_families import KINDS
from test_families import write as write_family
from test_objectives import ALIGNED, BAGS, EPISODES, EVERY, ONE, SPANS, trainer_of

import relpt
from gpu import backends
from relpt.objectives import CP, EP, MLM, RC, Domain

OBJECTIVES = {
    "every": EVERY,
    "supervised": [CP(positives="relation", similarity="dot"), MLM()],
    "entity pairs": [EP()],
    "bags": [*BAGS, ONE],
    "episodes": EPISODES,
    "spans": SPANS,
    "alignment": ALIGNED,
    "domain": [RC(weight=0.5), Domain(ramp_steps=4), MLM(weight=0.3)],
}
RATES = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
REPRESENTATIONS = ("mention_mean+mean", "cls", "mask")


@pytest.fixture(params=backends.NAMES)
def backend(request, monkeypatch):
    return backends.stand_for_cuda(request.param, monkeypatch)


@pytest.fixture(scope="module")
def data():
    return relpt.load(records_with_entities())


def of_each_device(folder: Path, dtype="float32", **options):
    """The same encoder on the CPU and on the GPU."""
    return [
        relpt.Encoder.from_pretrained(folder, device=device, dtype=dtype, num_threads=2, **options)
        for device in ("cpu", "cuda")
    ]


def check_figures(want, got, rel):
    assert len(want) == len(got) > 0
    for expected, found in zip(want, got, strict=True):
        names = {name for name in expected if name.startswith("loss")} | {"grad_norm"}
        for name in names:
            assert found[name] == pytest.approx(expected[name], rel=rel), name
        assert [found[name] for name in ("tokens", "masked")] == [expected[name] for name in ("tokens", "masked")]


def check_training(encoders, objectives, data, target=None, rel=2e-4, **options):
    """Two steps give the same figures on both."""
    check_figures(
        *(
            trainer_of(encoder, objectives, max_steps=2, **options)
            .fit(data, target=target, show_progress_bar=False)
            .records
            for encoder in encoders
        ),
        rel=rel,
    )


def check_vectors(encoders, data, most):
    want, got = (encoder.encode(data, max_length=32, show_progress_bar=False) for encoder in encoders)
    assert np.abs(got - want).max() <= most * np.abs(want).max()


@pytest.mark.parametrize(
    ("dtype", "micro", "rel"), [("float32", 32, 2e-4), ("float32", 2, 2e-4), ("bfloat16", 32, 2e-2)]
)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives(tmp_path, backend, data, name, dtype, micro, rel):
    target = relpt.load(tiny_bert.records(23, seed=5)) if name == "domain" else None
    encoders = of_each_device(tiny_bert.write_folder(tmp_path, **RATES), dtype)
    options = {"sentences_per_step": 7, "micro_batch_pairs": micro}
    check_training(encoders, OBJECTIVES[name], data, target, rel, **options)


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_representations(tmp_path, backend, data, representation):
    encoders = of_each_device(tiny_bert.write_folder(tmp_path, **RATES), representation=representation)
    check_training(encoders, EVERY, data)


@pytest.mark.parametrize("kind", KINDS)
def test_families(tmp_path, backend, data, kind):
    encoders = of_each_device(write_family(tmp_path, kind))
    check_vectors(encoders, data, 1e-5)
    check_training(encoders, EVERY, data)


def test_a_graph_at_the_markers(tmp_path, backend, data):
    encoders, graph = of_each_device(tiny_bert.write_folder(tmp_path, **RATES)), graph_of(records_with_entities())
    for encoder in encoders:
        encoder.inject(graph, dropout=0.2)
    check_training(encoders, EVERY, data)
    check_vectors(encoders, data, 1e-3)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_classifier_is_fine_tuned(tmp_path, backend, data, optimizer):
    options = {"epochs": 1, "batch_size": 8, "max_length": 32, "learning_rate": 1e-3, "optimizer": optimizer}
    few = data[:24]
    want, got = (
        relpt.Classifier(encoder, **options).fit(few, show_progress_bar=False)
        for encoder in of_each_device(tiny_bert.write_folder(tmp_path, **RATES))
    )
    np.testing.assert_allclose(got.predict_proba(few), want.predict_proba(few), atol=1e-4)


def test_a_hybrid_is_fine_tuned(tmp_path, backend, data):
    folder, few = tiny_bert.write_folder(tmp_path, **RATES), data[:24]
    pairs = zip(of_each_device(folder), of_each_device(folder, prompt="between", representation="mask"), strict=True)
    want, got = (
        relpt.Classifier(relpt.HybridEncoder(*pair), epochs=1, batch_size=8, max_length=48).fit(
            few, show_progress_bar=False
        )
        for pair in pairs
    )
    np.testing.assert_allclose(got.predict_proba(few), want.predict_proba(few), atol=1e-4)
