"""Errors for people: what was wrong, where, the nearest valid choice, and what to do.

A `Problem` is a mistake that its reader can mend (a typo, an absent file, a sparsity out of range). The command line
prints it without a traceback; any other exception is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

LONGEST = 1000
"""Characters of a place or of a sentence that are shown whole."""


class Problem(Exception):
    """A mistake that a person can mend.

    Args:
        what: What is wrong, in one sentence without a final full stop.
        where: The place: `file:line`, a dotted key, a layer's name.
        nearest: The valid choices closest to what was given, best first.
        hint: What to do about it.
    """

    def __init__(self, what: str, *, where: str | None = None, nearest: Sequence[str] = (), hint: str | None = None):
        self.what, self.where, self.nearest, self.hint = what, where, tuple(nearest), hint
        super().__init__(what, where, self.nearest, hint)

    def at(self, where: str | None) -> Problem:
        """Returns the same problem with this place instead of its own."""
        return Problem(self.what, where=where, nearest=self.nearest, hint=self.hint)

    def __reduce__(self):  # keeps the keyword arguments when a problem crosses a process
        return _rebuild, (self.what, self.where, self.nearest, self.hint)

    def __str__(self) -> str:
        lines = [": ".join(map(_short, filter(None, (self.where, self.what))))]
        if self.nearest:
            lines.append("did you mean " + " or ".join(repr(n) for n in self.nearest) + "?")
        if self.hint:
            lines.append(self.hint)
        return "\n  ".join(lines)


def _short(text: str) -> str:
    """Returns a text without its middle where it is too long to be read, as with a wrong value of a million digits."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


def _rebuild(what: str, where: str | None, nearest: Sequence[str], hint: str | None) -> Problem:
    return Problem(what, where=where, nearest=nearest, hint=hint)


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """Returns up to three names that are close to `name`, the closest first."""
    names = list(names)
    folded = {n.lower(): n for n in names}
    close = difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.6)
    part = [n for n in folded if len(name) > 2 and name.lower() in n and n not in close]
    return [folded[n] for n in (close + part)[:3]]


def unknown(kind: str, name: str, names: Iterable[str], where: str | None = None) -> Problem:
    """Returns the problem that there is no `kind` called `name`, with the nearest names and all of them."""
    names = sorted(names)
    hint = f"there is: {', '.join(names)}" if names else f"there is no {kind} at all"
    return Problem(f"unknown {kind} {name!r}", where=where, nearest=nearest(name, names), hint=hint)
