"""The CNN of csrc/cnn.h against itself written in NumPy, its gradients, what it must not depend on; SGD."""

import numpy as np
import pytest
from cnn_formula import BARE, config_of, some_arrays, struct_of, vectors
from corpora import CM, CT, OC, OM, OT
from network import Config, Network, SgdOptions
from ops.harness import cpu_levels

pytestmark = pytest.mark.core

ENDS, RANDOM = some_arrays()
FORMS = {
    "cnn": {},
    "pcnn": {"piecewise": True},
    "pcnn-relu-tags": {"piecewise": True, "activation": 1, "pos_size": 3, "ner_size": 2},
    "cnn-window-5-ner": {"window": 5, "ner_size": 3},
    "cnn-window-2": {"window": 2, "pos_size": 1, "max_distance": 2},
    "cnn-window-1": {"window": 1},
}
BACKENDS = ("ref", *cpu_levels())


def values_of(config, seed=1):
    with Network(struct_of(config), seed) as network:
        values = {name: value.copy() for name, value in network.parts(network.values).items()}
    values["convolution.bias"] = np.random.default_rng(seed).normal(0, 0.3, config["hidden_size"]).astype(np.float32)
    return values


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("arrays", [ENDS, RANDOM], ids=["ends", "random"])
def test_vectors(form, arrays, backend):
    config, rows = config_of(**form), np.arange(len(arrays["relation"]))
    values = values_of(config)
    with Network(struct_of(config), values, backend=backend, num_threads=2) as network:
        got = network.forward(arrays, BARE, rows, CM)
    want = vectors(config, values, arrays, rows)
    assert got.shape == (len(rows), config["hidden_size"] * (3 if config["piecewise"] else 1))
    np.testing.assert_allclose(got, want, atol=2e-6)


@pytest.mark.parametrize("setting", [CM, CT, OC, OM, OT])
@pytest.mark.parametrize("form", ["cnn", "pcnn-relu-tags"])
def test_every_setting(form, setting):
    config, rows = config_of(**FORMS[form]), np.arange(len(RANDOM["relation"]))
    values = values_of(config)
    with Network(struct_of(config), values) as network:
        got = network.forward(RANDOM, BARE, rows, setting)
    np.testing.assert_allclose(got, vectors(config, values, RANDOM, rows, setting), atol=2e-6)


@pytest.mark.parametrize("backend", ["ref", "cpu"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_gradients_of_every_parameter(form, backend):
    """Against differences of the NumPy form in float64, where a step of 1e-6 changes no maximum's place."""
    config, rows = config_of(**form), np.arange(6)
    values = values_of(config)
    dvectors = np.random.default_rng(2).normal(size=(6, config["hidden_size"] * (3 if config["piecewise"] else 1)))
    with Network(struct_of(config), values, backend=backend) as network:
        network.forward(ENDS, BARE, rows, CM)
        before = np.random.default_rng(3).normal(size=network.params.total).astype(np.float32)
        flat = network.backward(dvectors, before.copy()) - before  # added to what is there
        got = {name: part.copy() for name, part in network.parts(flat).items()}
    exact = {name: value.astype(np.float64) for name, value in values.items()}
    used = np.unique(np.concatenate([ENDS["ids"][: ENDS["offsets"][6]]]))
    for name, value in exact.items():
        want = np.zeros_like(value)
        cells = (
            np.ndindex(value.shape) if name != "word_embeddings.weight" else ((i, j) for i in used for j in range(4))
        )
        for cell in cells:
            old, slopes = value[cell], []
            for step in (1e-6, -1e-6):
                value[cell] = old + step
                slopes.append(float((dvectors * vectors(config, exact, ENDS, rows)).sum()))
            value[cell] = old
            want[cell] = (slopes[0] - slopes[1]) / 2e-6
        assert np.abs(want).max() > 1e-3, name
        np.testing.assert_allclose(got[name], want, atol=3e-6 * max(1, np.abs(want).max()), err_msg=name)


@pytest.mark.parametrize("piecewise", [False, True])
def test_a_vector_depends_on_its_sentence_alone(piecewise):
    """Also in training: the mask of dropout goes by the sample's number in the step. So no window crosses an end."""
    config = config_of(piecewise=piecewise, window=5)
    values, rows = values_of(config), np.arange(12)
    with Network(struct_of(config), values, backend="cpu") as network:
        for dropout in (0.0, 0.5):
            whole = network.forward(ENDS, BARE, rows, CM, dropout=dropout)
            for row in rows:
                alone = network.forward(ENDS, BARE, [row], CM, dropout=dropout, numbers=[row])
                assert alone.tobytes() == whole[row : row + 1].tobytes()
            turned = network.forward(ENDS, BARE, rows[::-1], CM, dropout=dropout, numbers=rows[::-1])
            assert np.array_equal(turned, whole[::-1])


@pytest.mark.parametrize("backend", ["ref", "cpu"])
def test_dropout_scales_what_it_keeps(backend):
    config = config_of(hidden_size=64, piecewise=True)
    values, rows, p = values_of(config), np.arange(12), 0.5
    dvectors = np.random.default_rng(5).normal(size=(12, 192))
    with Network(struct_of(config), values, backend=backend) as network:
        plain = network.forward(ENDS, BARE, rows, CM)
        dropped = network.forward(ENDS, BARE, rows, CM, dropout=p)
        kept = (dropped != 0) | (plain == 0)
        np.testing.assert_allclose(dropped, np.where(kept, plain / (1 - p), 0), rtol=1e-6)
        assert 0.45 < kept[plain != 0].mean() < 0.55
        assert not np.array_equal(dropped, network.forward(ENDS, BARE, rows, CM, dropout=p, step=1))
        again = network.forward(ENDS, BARE, rows, CM, dropout=p)
        assert np.array_equal(again, dropped)
        with_mask = network.backward(dvectors)
        network.forward(ENDS, BARE, rows, CM)
        np.testing.assert_allclose(with_mask, network.backward(dvectors * kept / (1 - p)), atol=1e-5)


@pytest.mark.parametrize("form", ["cnn", "pcnn-relu-tags"])
def test_bytes_do_not_depend_on_the_number_of_threads(form):
    config = config_of(**FORMS[form]) | {"hidden_size": 230, "word_size": 50}
    values, found = values_of(config), []
    dvectors = np.random.default_rng(4).normal(size=(40, 230 * (3 if config["piecewise"] else 1)))
    for num_threads in (1, 2, 4):
        with Network(struct_of(config), values, backend="cpu", num_threads=num_threads) as network:
            network.device.set_scratch((2048, 1024, 1 << 16, 128, 64))
            out = network.forward(RANDOM, BARE, np.arange(40), CM, dropout=0.5)
            found.append((out.tobytes(), network.backward(dvectors).tobytes()))
    assert found[0] == found[1] == found[2]


def test_an_empty_piece_gives_zeros():
    """The sentence ends with a mention: nothing stands behind it, and its part of the vector says so."""
    config = config_of(piecewise=True)
    with Network(struct_of(config), values_of(config)) as network:
        pieces = network.forward(ENDS, BARE, np.arange(12), CM).reshape(12, 3, -1)
    behind = np.array([0, 0, 3, 3, 0, 0, 0, 0, 4, 4, 0, 0])
    assert np.array_equal((pieces[:, 2] == 0).all(axis=1), behind == 0)
    assert (pieces[:, :2] != 0).all()


def test_words_far_away_share_a_position():
    """Behind max_distance it does not matter how far: more of the same word change nothing."""
    config, vectors_of = config_of(max_distance=2, window=1), []
    values = values_of(config)
    for n in (4, 9):
        ids = np.int32([30, 31, *[40] * n])
        arrays = ENDS | {"ids": ids, "offsets": np.int64([0, len(ids)]), "spans": np.int32([[0, 1, 1, 2]])}
        arrays |= {name: np.zeros(1, np.int32) for name in ("relation", "head_id", "tail_id")}
        arrays |= {name: np.full(1, -1, np.int32) for name in ("head_type", "tail_type")}
        arrays |= {name: np.zeros(len(ids), np.int32) for name in ("pos_tag", "ner_tag")}
        with Network(struct_of(config), values) as network:
            vectors_of.append(network.forward(arrays, BARE, [0], CM))
    assert np.array_equal(*vectors_of)


@pytest.mark.parametrize("field", ["vocab_size", "word_size", "max_distance", "position_size", "window", "hidden_size"])
def test_a_configuration_out_of_range_is_named(field):
    with pytest.raises(RuntimeError, match=f"config: {field} is 0, expected 1 to"):
        Network(struct_of(config_of(**{field: 0})), 1)


def test_it_has_no_hidden_states_for_masked_words():
    config = config_of()
    with Network(struct_of(config), 1) as network, pytest.raises(RuntimeError, match="a CNN has no hidden states"):
        network.forward(ENDS, BARE, [0], CM, masked=True)


ENCODER = Config(
    vocab_size=200, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12,
    max_position_embeddings=64, type_vocab_size=2, embedding_size=8, layer_norm_eps=1e-5, initializer_range=0.3,
    attended_dropout=True, feed_forward_dropout=True,
)  # fmt: skip


@pytest.mark.parametrize("backend", ["ref", "cpu"])
def test_an_encoders_masks_are_other_ones_in_each_step(backend):
    from corpora import TOKENS

    with Network(ENCODER, 5, backend=backend, spec=(0, 2)) as network:
        vectors = [
            network.forward(RANDOM, TOKENS, np.arange(5), CM, dropout=0.3, step=step) for step in (0, 1, 2**32 - 1, 1)
        ]
    assert len({one.tobytes() for one in vectors[:3]}) == 3
    assert vectors[3].tobytes() == vectors[1].tobytes()


def test_an_encoder_by_the_same_calls():
    """Its gradients through the seam, along a direction, against differences of its vectors."""
    from corpora import TOKENS

    rng = np.random.default_rng(0)
    with Network(ENCODER, 5, spec=(0, 2)) as network:
        assert network.dim == 24
        vectors = network.forward(RANDOM, TOKENS, np.arange(5), CM)
        dvectors, values = rng.normal(size=vectors.shape), network.values.copy()
        grads = network.backward(dvectors).astype(np.float64)
        for name in ("encoder.layer.0.output.dense.weight", "embeddings.word_embeddings.weight"):
            direction = np.zeros_like(values)
            part = network.part(direction, name)
            part[...] = rng.normal(size=part.shape)
            sums = []
            for step in (2e-3, -2e-3):
                network.values[:] = values + np.float32(step) * direction
                sums.append(float((dvectors * network.forward(RANDOM, TOKENS, np.arange(5), CM)).sum()))
            network.values[:] = values
            want = (sums[0] - sums[1]) / 4e-3
            assert abs(float(grads @ direction) - want) <= 2e-3 * abs(want), name


@pytest.mark.parametrize("backend", ["ref", "cpu"])
def test_sgd_updates_every_parameter(backend):
    config = config_of(pos_size=2)
    rng, options = np.random.default_rng(1), SgdOptions(momentum=0.9, weight_decay=0.1, max_grad_norm=2.0)
    with Network(struct_of(config), 1, backend=backend) as network:
        moments = np.zeros(network.params.total, np.float32)
        want, velocity = network.values.astype(np.float64), moments.astype(np.float64)
        decay = np.ones_like(want)
        network.part(decay, "convolution.bias")[...] = 0
        for norm in (1.0, 8.0):
            grads = rng.normal(size=len(want)).astype(np.float32)
            network.sgd(grads, options, 0.5, norm, moments)
            velocity = 0.9 * velocity + grads * min(1, 2 / norm) + 0.1 * decay * want
            want -= 0.5 * velocity
        np.testing.assert_allclose(network.values, want, rtol=2e-6, atol=1e-6)
        np.testing.assert_allclose(moments, velocity, rtol=2e-6, atol=1e-6)


def test_sgd_without_momentum_keeps_no_moments():
    config = config_of()
    with Network(struct_of(config), 1) as network:
        before, grads = network.values.copy(), np.ones(network.params.total, np.float32)
        network.sgd(grads, SgdOptions(0, 0, 0), 0.25, 100.0)
        np.testing.assert_allclose(network.values, before - 0.25, atol=1e-7)
