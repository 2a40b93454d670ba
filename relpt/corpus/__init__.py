"""Tokenized corpora: flat integer arrays on disk, one for every input setting."""

from relpt.corpus.store import Corpus
from relpt.corpus.tokenizing import tokenize, tokenizer_fingerprint

__all__ = ["Corpus", "tokenize", "tokenizer_fingerprint"]
