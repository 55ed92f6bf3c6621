"""Standard output as it is: no terminal, one that cannot show every letter, one that cannot be written any more."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PLAIN = {"±": "+/-", "−": "-", "–": "-", "—": "-", "×": "x", "→": "->", "≥": ">=", "≤": "<=", "•": "*", "…": "..."}
WIDTH = 160
"""Columns where the output is no terminal."""
_HANDLER = "harness.plain"


def console() -> Console:
    """Returns what prints to standard output: words as they are, `N:M` with its colon and no colours for numbers."""
    from rich.console import Console

    return Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else WIDTH)


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
