"""``relpt demo``: the main job on the sample corpus, told stage by stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from relpt.files import check_can_write, read_table, write_into, write_json
from relpt.intervals import with_interval
from relpt.runlog import HistoryFile, counted, duration

__all__ = ["SETTINGS", "fewshot_table", "run_demo"]

SETTINGS: Final[dict[str, Any]] = {
    "encoder": "minilm",
    "representation": "cls+entity_start+mean",
    "steps": 100,
    "seed": 42,
    "options": {"pairs_per_step": 32, "loss_representation": "entity_start+mean"},  # others: CPTrainer's defaults
    "inputs": ("C+M", "OnlyC", "OnlyM"),
    "few_shot": {"n_way": 5, "k_shot": 1, "episodes": 10_000, "similarity": "cosine", "seed": 42},
    "max_length": 128,
}
_STAGES: Final = 6


def fewshot_table(before: Iterable[Any], after: Iterable[Any]) -> str:
    """Few-shot rows before and after as lines of text, with their differences."""
    from relpt.report.plots import pair_rows

    lines = [f"  {'inputs':<8}{'before':>17}{'after':>17}{'change':>10}"]
    for a, b in pair_rows(before, after):
        was, now = (with_interval(row["accuracy"], row["ci95"], 3) for row in (a, b))
        lines.append(f"  {a['inputs']:<8}{was:>17}{now:>17}{_change(a, b):>+10.3f}")
    return "\n".join(lines)


def _change(before: dict[str, Any], after: dict[str, Any]) -> float:
    return round(after["accuracy"] - before["accuracy"], 3) + 0.0  # no minus zero


class _Stages:
    """Says what is done, and how long it took."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self.say = say
        self.seconds: dict[str, float] = {}
        self._begin = self._start = time.monotonic()

    def start(self, name: str, text: str) -> None:
        self._name, self._start = name, time.monotonic()
        self.say(f"[{len(self.seconds) + 1}/{_STAGES}] {text}")

    def done(self, text: str) -> None:
        self.seconds[self._name] = round(time.monotonic() - self._start, 2)
        self.say(f"      {text} ({duration(self.seconds[self._name])})")

    def total(self) -> float:
        return time.monotonic() - self._begin


def _check_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file; --out names the folder to write")
    if any((out / name).exists() for name in ("config.json", "checkpoints", "rows.jsonl")):
        raise FileExistsError(f"{out} holds a run or a model, which is no demo's; give another folder with --out")
    if out.is_dir() and any(out.iterdir()) and not _is_demo(out / "result.json"):
        raise FileExistsError(f"{out} is not empty and holds no earlier demo; give another folder with --out")
    check_can_write(out, "--out")


def _is_demo(path: Path) -> bool:
    """Whether it is the result of an earlier demo."""
    try:
        return {"before", "after"} <= read_table(path).keys()
    except (OSError, ValueError):
        return False


@contextmanager
def _whole_or_gone(out: Path) -> Iterator[None]:
    """Takes a new demo's history.jsonl away where it does not end: a folder without result.json is no demo's, and the
    same command would be refused."""
    fresh = not (out / "result.json").exists()
    try:
        yield
    except BaseException:
        if fresh:
            (out / "history.jsonl").unlink(missing_ok=True)
        raise


def run_demo(
    out: str | Path = "relpt-demo",
    *,
    steps: int | None = None,
    pairs: int | None = None,
    seed: int | None = None,
    encoder: str | None = None,
    threads: int | None = None,
    episodes: int | None = None,
    say: Callable[[str], object] = print,
    callbacks_of: Callable[[int], list[Any]] = lambda steps: [],
    show_progress_bar: bool | None = None,
) -> dict[str, Any]:
    """Pre-trains on the sample corpus's 16 relations and evaluates on its 8 others, before and after.

    Args:
        out: folder for result.json, report.html, the figures, history.jsonl and encoder/.
        steps, pairs, seed, encoder, episodes: in place of SETTINGS's.
        threads: of the core.
        say: called with each line for the reader.
        callbacks_of: further callbacks of the training run, given its number of steps.
        show_progress_bar: None shows bars in a notebook or on a terminal.

    Returns:
        What result.json holds.

    Raises:
        FileNotFoundError: MiniLM is not installed; the message says how to install it.
        FileExistsError: the folder holds something else than a demo.
        KeyboardInterrupt: Ctrl-C; a new folder has no history.jsonl then, and the same call may come again.
    """
    from relpt import CPTrainer, Encoder, FewShot, load_sample

    s, out = SETTINGS, Path(out)
    seed = s["seed"] if seed is None else seed
    _check_folder(out)
    with _whole_or_gone(out):
        stages = _Stages(say)
        stages.start("encoder", f"Open the encoder {encoder or s['encoder']!r}")
        enc = Encoder.from_pretrained(
            encoder or s["encoder"], representation=s["representation"], num_threads=threads, seed=seed
        )
        c = enc.config
        size = (
            f"{c['num_hidden_layers']} layers, hidden {c['hidden_size']}, {enc.num_parameters / 1e6:.1f} M parameters"
        )
        stages.done(f"{size}, {enc.num_threads} thread{'s' * (enc.num_threads > 1)}")

        stages.start("data", "Load the sample corpus")
        train, unseen = load_sample("train"), load_sample("unseen")
        stages.done(
            f"{len(train)} sentences of {len(train.labels)} relations to train on,\n"
            f"      {len(unseen)} sentences of {len(unseen.labels)} other relations to test on"
        )

        task = FewShot(**{**s["few_shot"], **({} if episodes is None else {"episodes": episodes})})
        test = unseen.tokenize(enc, max_length=s["max_length"], show_progress_bar=False)
        what = f"{task.n_way}-way {task.k_shot}-shot, {counted(task.episodes, 'episode')}, on unseen relations"
        stages.start("before", f"Test before training: {what}")
        before, vectors_before = _evaluate(enc, test, task, show_progress_bar)
        stages.done(_short(before))

        options = {**s["options"], "max_steps": steps or s["steps"], "seed": seed}
        options.update({} if pairs is None else {"pairs_per_step": pairs})
        trainer = CPTrainer(enc, **options)
        stages.start("pretrain", f"Pre-train: {options['max_steps']} steps of {options['pairs_per_step']} pairs")
        out.mkdir(parents=True, exist_ok=True)
        log = HistoryFile(out / "history.jsonl")
        try:
            history = trainer.fit(
                train, callbacks=[log, *callbacks_of(options["max_steps"])], show_progress_bar=show_progress_bar
            )
            log.finish(history)
        finally:
            log.close()
        if history.status == "interrupted":
            raise KeyboardInterrupt
        first, last = history[0], history[-1]
        speed = sum(history["sentences"]) / sum(history["sentences"] / history["sentences_per_second"])
        stages.done(f"loss {first['loss']:.2f} → {last['loss']:.2f}, {speed:.0f} sentences/s")

        stages.start("after", f"Test after training: {what}")
        after, vectors_after = _evaluate(enc, test, task, show_progress_bar)
        stages.done(_short(after))

        stages.start("report", f"Write the encoder, the figures and the report into {out}")
        result = {
            "before": [row.to_dict() for row in before],
            "after": [row.to_dict() for row in after],
            "steps": len(history),
            "seed": seed,
            "loss_first": first["loss"],
            "loss_last": last["loss"],
            "sentences_per_second": round(speed, 1),
            "seconds": stages.seconds,
        }
        enc.save_pretrained(out / "encoder", card={**enc.card, "metrics": result})
        figures = _figures(before, after, history, vectors_before, vectors_after, [i.relation for i in unseen], say)
        with write_into(out) as new:
            for name, (_, png, _) in figures.items():
                (new / name).write_bytes(png)
        _report(out, enc, train, unseen, result, figures, stages)
        stages.done("done")
        result["seconds"] = {**stages.seconds, "total": round(stages.total(), 2)}
        with write_into(out) as new:
            write_json(new / "result.json", result)
        say(f"\n{what[:1].upper()}{what[1:]}:\n\n{fewshot_table(before, after)}\n")
        say(f"  report       {out / 'report.html'}")
        if figures:
            say(f"  figures      {', '.join(figures)}")
        say(f"  encoder      {out / 'encoder'}, opened by relpt and by transformers")
        say(f"  everything   {duration(stages.total())}")
        return result


def _evaluate(encoder: Any, corpus: Any, task: Any, show: bool | None) -> tuple[list[Any], Any]:
    """Few-shot results for every input setting, and the vectors of the first."""
    results, first = [], None
    for inputs in SETTINGS["inputs"]:
        vectors = encoder.encode(corpus, inputs=inputs, max_length=SETTINGS["max_length"], show_progress_bar=show)
        results.append(task.score(vectors, corpus.relation, inputs=inputs, num_threads=encoder.num_threads))
        first = vectors if first is None else first
    return results, first


def _short(results: list[Any]) -> str:
    return ", ".join(f"{r.inputs} {r.accuracy:.3f}" for r in results)


def _figures(
    before: Any, after: Any, history: Any, vectors_before: Any, vectors_after: Any, labels: Any, say: Any
) -> dict[str, tuple[str, bytes, str]]:
    """File name -> (heading, PNG, caption); empty, and said so, without matplotlib."""
    from relpt.report import figure_png, plot_fewshot, plot_history, plot_map
    from relpt.report.plots import new_figure

    try:
        bars, loss, both = new_figure(6.4, 3.6), new_figure(7.2, 3.4), new_figure(9.6, 5.2)
    except ImportError as error:
        say(f"      figures are left out: {error}")
        return {}
    plot_fewshot(before, after, bars.subplots())
    plot_history(history, loss.subplots())
    plot_map(vectors_before, vectors_after, labels, both.subplots(1, 2))
    first, n = before[0], len(set(labels))
    return {
        "fewshot.png": (
            "Accuracy on unseen relations",
            figure_png(bars),
            f"{first.way}-way {first.shot}-shot accuracy before and after pre-training, with 95 % intervals. C+M: the "
            "sentence with its mentions; OnlyC: the mentions are blanked; OnlyM: the mentions alone. Dashed: chance.",
        ),
        "history.png": (
            "Training",
            figure_png(loss),
            "Loss over the steps: each step pale, the mean over the last steps strong. Contrastive: finding the "
            "sentence with the same relation among all of the step"
            + ("; masked words: guessing the words left out." if history[0]["loss_mlm"] else "."),
        ),
        "map.png": (
            "Map of the unseen relations",
            figure_png(both),
            f"Every point is a sentence of one of {n} relations that were not trained on, as its relation vector (C+M) "
            "before and after, seen along the two directions in which the vectors differ most (PCA). The closer the "
            "points of one colour lie together, the better the relation is told apart.",
        ),
    }


def _report(
    out: Path, enc: Any, train: Any, unseen: Any, result: dict[str, Any], figures: Any, stages: _Stages
) -> None:
    from relpt import _core
    from relpt.report import write_report

    card, cpu = enc.card, _core.cpu_info()
    gain = result["after"][0]["accuracy"] - result["before"][0]["accuracy"]
    lead = (
        f"{enc.name} was pre-trained by contrast for {result['steps']} steps on {len(train)} sentences of "
        f"{len(train.labels)} relations. On {len(unseen.labels)} other relations, which it never trained on, its "
        f"{result['before'][0]['inputs']} accuracy changed by {gain:+.3f}."
    )
    names = {
        "encoder": "open the encoder",
        "data": "load the data",
        "before": "test before",
        "pretrain": "pre-train",
        "after": "test after",
    }
    write_report(
        out,
        title="relpt demo: what an encoder learns about relations",
        lead=lead,
        before=result["before"],
        after=result["after"],
        figures={heading: (png, caption) for heading, png, caption in figures.values()},
        examples=list(unseen)[:: max(1, len(unseen) // 4)][:4],
        tables={
            "Data": {
                "trained on": f"{train.name}: {len(train)} sentences, {', '.join(train.labels)}",
                "tested on": f"{unseen.name}: {len(unseen)} sentences, {', '.join(unseen.labels)}",
                "hash of the training data": card["data"]["hash"],
            },
            "Encoder": {
                "name": enc.name,
                "layers × hidden": f"{enc.config['num_hidden_layers']} × {enc.config['hidden_size']}",
                "parameters": f"{enc.num_parameters:,}",
                "relation vector": f"{enc.representation}, {enc.dim} numbers",
            },
            "Times": {names.get(name, name): f"{value:.1f} s" for name, value in stages.seconds.items()}
            | {"training speed": f"{result['sentences_per_second']:.0f} sentences/s"},
            "Versions and machine": {
                **card["versions"],
                "CPU level": cpu["level"],
                "threads": enc.num_threads,
            },
        },
        options=card["options"],
        checkpoint="encoder",
    )
