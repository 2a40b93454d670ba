"""The structures of csrc/corpus.h, batch.h and sampler.h, for tests that call the C core below its Python types."""

import ctypes

import numpy as np

INT32, INT64, DOUBLE = ctypes.c_int32, ctypes.c_int64, ctypes.c_double
INT32S, INT64S, FLAGS = map(ctypes.POINTER, (INT32, INT64, ctypes.c_uint8))


def structure(cls, values):
    """A structure from a mapping of its fields; arrays become pointers into them."""
    made = cls()
    made.kept = values
    for name, kind in cls._fields_:
        value = values[name]
        setattr(made, name, ctypes.cast(value.ctypes.data, kind) if isinstance(value, np.ndarray) else value)
    return made


class CorpusArrays(ctypes.Structure):
    """rp_corpus_arrays."""

    _fields_ = (
        ("n", INT64),
        ("n_ids", INT64),
        ("ids", INT32S),
        ("offsets", INT64S),
        *((name, INT32S) for name in ("spans", "relation", "head_id", "tail_id", "head_type", "tail_type")),
        ("n_relations", INT32),
        ("n_types", INT32),
        ("n_type_ids", INT64),
        ("type_ids", INT32S),
        ("type_offsets", INT64S),
        ("vocab_size", INT32),
        *((name, INT32S) for name in ("pos_tag", "ner_tag")),
        *((name, INT32) for name in ("n_pos", "n_ner")),
    )

    @classmethod
    def of(cls, arrays):
        sizes = {"n": len(arrays["relation"]), "n_ids": len(arrays["ids"])}
        sizes |= {"pos_tag": None, "ner_tag": None, "n_pos": 0, "n_ner": 0} if "pos_tag" not in arrays else {}
        sizes |= {"n_types": len(arrays["type_offsets"]) - 1, "n_type_ids": len(arrays["type_ids"])}
        return structure(cls, arrays | sizes)


class Tokens(ctypes.Structure):
    """rp_tokens."""

    names = ("cls", "sep", "mask", "head_start", "head_end", "tail_start", "tail_end", "blank", "subject", "object")
    _fields_ = (
        *((name, INT32) for name in (*names, "vocab_size")),
        ("special", FLAGS),
        ("bare", ctypes.c_bool),
        ("text_order", ctypes.c_bool),
        ("prompt_length", INT32),
        ("prompt", INT32S),
        ("n_types", INT32),
        ("marker_ids", INT32S),
        ("marker_offsets", INT32S),
        ("n_entities", INT32),
        ("graph_row", INT32S),
        ("continues", FLAGS),
    )

    @classmethod
    def of(cls, tokens):
        plain = dict.fromkeys(cls.names, -1) | {"bare": False, "text_order": False, "prompt_length": 0, "prompt": None}
        plain |= {"n_types": 0, "marker_ids": None, "marker_offsets": None, "n_entities": 0, "graph_row": None}
        plain |= {"continues": None}
        return structure(cls, plain | tokens | {"vocab_size": len(tokens["special"])})


class SourceOptions(ctypes.Structure):
    """rp_source_options."""

    _fields_ = (
        ("kind", ctypes.c_int),
        ("target", ctypes.c_bool),
        ("count", INT64),
        ("relation_exponent", DOUBLE),
        ("distinct_relations", ctypes.c_bool),
        ("pairs_per_relation", INT64),
        ("positive_share", DOUBLE),
        ("hard_share", DOUBLE),
        ("whole_epochs", ctypes.c_bool),
        *((name, INT64) for name in ("n_way", "k_shot", "n_query", "bag_size")),
    )


class SpanMasking(ctypes.Structure):
    """rp_span_masking."""

    _fields_ = (
        *((name, DOUBLE) for name in ("mention_probability", "relation_probability", "length_p")),
        ("longest", INT64),
    )


class SamplerOptions(ctypes.Structure):
    """rp_sampler_options."""

    _fields_ = (
        ("seed", ctypes.c_uint64),
        ("max_length", INT64),
        ("p_blank", DOUBLE),
        ("role_blanks", ctypes.c_bool),
        ("mlm_probability", DOUBLE),
        ("spans", SpanMasking),
        ("graph_dropout", DOUBLE),
        ("input_weight", DOUBLE * 5),
        ("prefetch", ctypes.c_bool),
        ("sources", INT64),
        ("source", SourceOptions * 4),
    )


class Batch(ctypes.Structure):
    """rp_batch, the beginning."""

    after = (
        "pos",
        "sequence",
        "cu_seqlens",
        "sample",
        "head",
        "tail",
        "prompt_row",
        "relation",
        "pair",
        "mlm_row",
        "mlm_label",
        "span_left",
        "span_right",
        "span_place",
    )
    read = ("read", "read_pos", "read_sequence", "cu_read")
    mentions = ("head_first", "tail_first", "head_end", "tail_end")
    arrays = ("ids", *after, *mentions)
    _fields_ = (
        *((name, INT32) for name in ("S", "T", "M", "max_len", "S_capacity", "T_capacity")),
        ("ids", INT32S),
        ("text", FLAGS),
        *((name, INT32S) for name in after),
        ("R", INT32),
        *((name, INT32S) for name in (*read, *mentions)),
    )

    def dict(self):
        """The arrays as lists."""
        counts = {"cu_seqlens": self.S + 1, **dict.fromkeys(("ids", "pos", "sequence"), self.T)}
        counts |= dict.fromkeys(("mlm_row", "mlm_label", "span_left", "span_right", "span_place"), self.M)
        return {name: getattr(self, name)[: counts.get(name, self.S)] for name in self.arrays}
