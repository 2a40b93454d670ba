"""relpt: pre-trains, evaluates and dissects relation encoders.

``relpt.load`` reads sentences with two marked entities, ``relpt.Encoder`` gives their relation vectors,
``relpt.CPTrainer`` pre-trains it by contrast, ``relpt.FewShot`` evaluates it.
"""

from __future__ import annotations

import importlib
import logging
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from relpt.ablation import Ablation, ablate
    from relpt.classifier import Classifier
    from relpt.cnn import CNNEncoder
    from relpt.corpus import Corpus
    from relpt.data import BadRecord, Dataset, Instance, Report, load, load_sample, sample_relations
    from relpt.encoder import Encoder
    from relpt.episodes import Episodes, load_episodes, score_predictions
    from relpt.errors import BadRecordWarning, CudaError, FormatError, TruncationWarning
    from relpt.fewshot import FewShot, FewShotResult
    from relpt.finetuning import FineTuning, finetune
    from relpt.graph import GraphEmbeddings, LinkPrediction
    from relpt.history import History
    from relpt.hybrid import EntityTable, HybridEncoder
    from relpt.reproduction import Reproduction, reproduce
    from relpt.trainer import CPTrainer, MTBTrainer, Trainer
    from relpt.words import load_word_vectors

_HOMES = {
    "Ablation": "ablation",
    "BadRecord": "data",
    "BadRecordWarning": "errors",
    "CNNEncoder": "cnn",
    "CPTrainer": "trainer",
    "Trainer": "trainer",
    "MTBTrainer": "trainer",
    "Classifier": "classifier",
    "Corpus": "corpus",
    "CudaError": "errors",
    "Dataset": "data",
    "Encoder": "encoder",
    "EntityTable": "hybrid",
    "Episodes": "episodes",
    "FewShot": "fewshot",
    "FewShotResult": "fewshot",
    "FineTuning": "finetuning",
    "FormatError": "errors",
    "GraphEmbeddings": "graph",
    "History": "history",
    "HybridEncoder": "hybrid",
    "Instance": "data",
    "LinkPrediction": "graph",
    "Report": "data",
    "Reproduction": "reproduction",
    "TruncationWarning": "errors",
    "ablate": "ablation",
    "finetune": "finetuning",
    "load": "data",
    "load_episodes": "episodes",
    "load_sample": "data",
    "load_word_vectors": "words",
    "reproduce": "reproduction",
    "sample_relations": "data",
    "score_predictions": "episodes",
}

__all__ = [
    "Ablation",
    "BadRecord",
    "BadRecordWarning",
    "CNNEncoder",
    "CPTrainer",
    "Classifier",
    "Corpus",
    "CudaError",
    "Dataset",
    "Encoder",
    "EntityTable",
    "Episodes",
    "FewShot",
    "FewShotResult",
    "FineTuning",
    "FormatError",
    "GraphEmbeddings",
    "History",
    "HybridEncoder",
    "Instance",
    "LinkPrediction",
    "MTBTrainer",
    "Report",
    "Reproduction",
    "Trainer",
    "TruncationWarning",
    "__version__",
    "ablate",
    "finetune",
    "load",
    "load_episodes",
    "load_sample",
    "load_word_vectors",
    "reproduce",
    "sample_relations",
    "score_predictions",
]

logging.getLogger("relpt").addHandler(logging.NullHandler())


def _load_core() -> None:
    """Loads the compiled core, whose OpenMP reads its settings from the environment at that moment alone.

    OpenMP's threads wait asleep instead of spinning: on a machine that does other work too, a spinning thread holds up
    the one it waits for, and a step took twice as long. What the user has set stands, and the environment is afterwards
    as it was.
    """
    ours = not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys()
    if ours:
        os.environ["GOMP_SPINCOUNT"] = "1000"
    try:
        importlib.import_module("relpt._core")
    except ModuleNotFoundError as error:
        if error.name != "relpt._core":
            raise
        raise ModuleNotFoundError(  # a clone's folder, which comes before the installed package where Python starts
            f"{os.path.dirname(__file__)} has no compiled core: it is the source of relpt, not what was installed. "
            "Start Python in another folder, or compile the core in this one: pip install -e .",
            name=error.name,
        ) from None
    finally:
        if ours:
            del os.environ["GOMP_SPINCOUNT"]


_load_core()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'relpt' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"relpt.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
