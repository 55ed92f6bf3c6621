"""Standard output as it is: no terminal, one that cannot show every letter, one that cannot be written any more."""

from __future__ import annotations

import codecs
import io
import logging
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PLAIN = {"±": "+/-", "−": "-", "–": "-", "—": "-", "×": "x", "→": "->", "≥": ">=", "≤": "<=", "•": "*", "…": "..."}
WIDTH = 160
"""Columns where the output is no terminal."""
QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}
"""What keeps the libraries' own bars and warnings out of ours; the user's settings win."""
LOUD = ("torchao", "torch.utils._pytree")
"""Loggers that tell, when transformers imports torchao, which kernels for GPUs it lacks."""
_HANDLER = "harness.plain"


def console() -> Console:
    """Returns what prints to standard output: words as they are, `N:M` with its colon and no colours for numbers."""
    from rich.console import Console

    return Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else WIDTH)


def quiet() -> None:
    """Keeps the libraries' own bars and warnings out of ours; they read how they are set when they are imported."""
    os.environ.update(QUIET | os.environ)
    for name in LOUD:
        logging.getLogger(name).setLevel(logging.ERROR)


def speak_plainly() -> None:
    """Writes a letter that the output's encoding lacks as its nearest plain ones, or as ?, instead of failing."""
    codecs.register_error(_HANDLER, _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


def lost() -> bool:
    """Says whether standard output cannot be written: a full device, a pipe whose reader has gone.

    What is left to write then goes nowhere, so that the interpreter does not stumble over it at its end.
    """
    try:
        sys.stdout.flush()
        os.write(sys.stdout.fileno(), b"")  # for a stream without a buffer: /dev/full refuses even that
    except io.UnsupportedOperation:  # it is no file
        return False
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False
