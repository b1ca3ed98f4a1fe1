"""The text that the demo model learns from: what every CPython installation carries.

Sources, all under the PSF licence: the standard library's modules (their sources, comments
and documentation strings) and the language reference topics of `pydoc`. Nothing is downloaded.

Held-out files are chosen by a hash of their path, so that the split does not depend on the
order in which a file system lists them.
"""

from __future__ import annotations

import ast
import hashlib
import json
import random
import sysconfig
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tokenizers import Tokenizer

__all__ = ["ASSISTANT", "END", "USER", "Corpus", "chat", "encode", "load_corpus", "load_held_out"]

USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"
SKIPPED_FOLDERS = frozenset(
    # Tables of code points and generated parsers teach a language model nothing; the test
    # suite is twice the size of the library and far less readable than it.
    {"encodings", "test", "tests", "idle_test", "site-packages", "pydoc_data", "__pycache__"}
)
LONGEST_FILE_BYTES = 200_000
HELD_OUT_ONE_IN = 40


@dataclass(frozen=True, slots=True)
class Corpus:
    """Documents for training and documents that training never sees.

    Attributes:
        train: Documents, each a string that ends without the end marker.
        held_out: Documents of other files, in the same form.
        digest: SHA-256 of all documents: two equal digests are the same corpus.
    """

    train: tuple[str, ...]
    held_out: tuple[str, ...]
    digest: str


def chat(prompt: str, answer: str) -> str:
    """One exchange in the form of the tokenizer's chat template."""
    return f"{USER}\n{prompt.strip()}{END}\n{ASSISTANT}\n{answer.strip()}"


def load_corpus(root: Path | None = None) -> Corpus:
    """Read the standard library below `root` (this interpreter's own when None)."""
    train = [*_documents(root, held_out=False), *_reference_topics()]
    held_out = list(_documents(root, held_out=True))
    digest = hashlib.sha256(json.dumps([train, held_out]).encode()).hexdigest()
    return Corpus(tuple(train), tuple(held_out), digest)


def load_held_out(root: Path | None = None) -> tuple[str, ...]:
    """`Corpus.held_out`, without reading the forty times as many files of the rest."""
    return tuple(_documents(root, held_out=True))


def encode(tokenizer: Tokenizer, documents: Sequence[str], seed: int) -> torch.Tensor:
    """All documents in one row of token ids, shuffled, each closed by the end marker."""
    documents = list(documents)
    random.Random(seed).shuffle(documents)  # noqa: S311 - an order, not a secret
    ids: list[int] = []
    (end,) = tokenizer.encode(END, add_special_tokens=False).ids
    for encoding in tokenizer.encode_batch(documents):
        ids.extend(encoding.ids)
        ids.append(end)
    return torch.tensor(ids, dtype=torch.long)


def _documents(root: Path | None, *, held_out: bool) -> Iterator[str]:
    """Of each file on one side of the split: the file, and the exchanges about its functions."""
    root = root or Path(sysconfig.get_path("stdlib"))
    for path in _modules(root):
        name = path.relative_to(root).as_posix()
        if _is_held_out(name) is held_out:
            text = path.read_text(encoding="utf-8", errors="replace")
            yield f"# {name}\n{text}"
            yield from _exchanges(text)


def _modules(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*.py")):
        folders = set(path.relative_to(root).parts[:-1])
        if not folders & SKIPPED_FOLDERS and path.stat().st_size <= LONGEST_FILE_BYTES:
            yield path


def _is_held_out(name: str) -> bool:
    return hashlib.sha256(name.encode()).digest()[0] % HELD_OUT_ONE_IN == 0


def _exchanges(text: str) -> Iterator[str]:
    """Documented functions, as requests for them and answers with their source."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    lines = text.replace("\f", " ").splitlines(keepends=True)
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        doc = ast.get_docstring(node)
        if doc and len(doc) < 600 and len(source := _source(lines, node)) < 3000:
            summary = doc.split("\n\n")[0]
            yield chat(f"Write the function `{node.name}`. {summary}", textwrap.dedent(source))


def _source(lines: list[str], node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """The function's lines; `ast.get_source_segment` would split the whole file at every call."""
    *body, last = lines[node.lineno - 1 : node.end_lineno]
    return "".join(body) + last.encode()[: node.end_col_offset].decode()


def _reference_topics() -> Iterator[str]:
    """The language reference that `help()` shows: the corpus's plain English."""
    from pydoc_data.topics import topics  # noqa: PLC0415 - 0.5 MB, wanted only here

    for title, text in sorted(topics.items()):
        yield text
        yield chat(f"Explain the Python topic `{title}`.", text[:3000])
