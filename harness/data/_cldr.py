"""Phrases in English and German from the CLDR patterns that `babel` carries; nothing here is translated by us."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, cycle, product

from harness.data._rows import share

LOCALES = ("en", "de")
TERRITORIES = """
    AT AU BE BG BR CA CH CL CM CN CZ DE DK DZ EG ES FI FR GB GR HU IN IT JP KE KR LU MA MX MY NL NO PE PL PT RO SE SG
    SN TN TR UA US ZA
"""
LANGUAGES = "ar bg cs da de el en es fi fr hu it ja ko nb nl pl pt ro ru sv tr uk zh"
SCRIPTS = "Arab Cyrl Deva Grek Hebr Latn"
UNITS = """
    area-square-meter digital-megabyte duration-day duration-hour duration-minute duration-second energy-calorie
    length-kilometer length-meter mass-gram mass-kilogram speed-kilometer-per-hour temperature-celsius volume-liter
"""
CURRENCIES = "CHF CZK EUR GBP JPY NOK PLN USD"
SPANS = {"seconds": range(2, 45), "minutes": range(2, 45), "hours": range(2, 21), "days": range(2, 6)}
SKELETONS = ("MMMd", "MMMMd", "yMMM", "yMMMM", "yMMMEd", "yQQQQ")
DAYS = [datetime.date(2000, 1, 1) + datetime.timedelta(days=days) for days in range(0, 9131, 5)]
"""Every fifth day of 25 years."""


def phrases() -> Iterator[tuple[str, str, bool]]:
    """Yields English, German and whether the phrase is an atom (a bare name), without repeats or ambiguous phrases."""
    german: dict[str, set[str]] = {}
    atoms: set[str] = set()
    for say, atom in _sayings():
        english, target = (" ".join(say(locale).split()) for locale in LOCALES)
        german.setdefault(english, set()).add(target)
        if atom:
            atoms.add(english)
    for english, targets in german.items():
        if len(targets) == 1:
            yield english, targets.pop(), english in atoms


def _sayings() -> Iterator[tuple[Callable[[str], str], bool]]:
    """Yields functions of the locale, each saying one thing, and whether it is a bare name."""
    from babel import Locale
    from babel.lists import format_list
    from babel.localedata import locale_identifiers
    from babel.numbers import format_currency
    from babel.units import format_unit

    places, languages = TERRITORIES.split(), LANGUAGES.split()
    names = {code: _name("territories", code) for code in places}
    names |= {code: _name("languages", code) for code in languages}
    names |= {code: _name("scripts", code) for code in SCRIPTS.split()}
    for name in names.values():
        yield name, True
    for locale in map(Locale.parse, sorted(locale_identifiers())):
        if locale.language in languages and locale.territory in places:
            yield locale.get_display_name, False
    for codes, style in product((places, languages), ("standard", "or")):
        for some in _drawn(codes, 2, 150) + _drawn(codes, 3, 250):
            yield lambda to, s=some, y=style: format_list([names[c](to) for c in s], y, to), False
    for unit, number in product(UNITS.split(), (*range(1, 41), 50, 100, 0.5, 1.5, 2.5)):
        yield lambda to, u=unit, n=number: format_unit(n, u, "long", locale=to), False
    for currency, number in product(CURRENCIES.split(), (*range(1, 41), 50, 100)):
        yield lambda to, c=currency, n=number: format_currency(n, c, "#,##0", to, False, "name"), False
        yield lambda to, c=currency, n=number: format_currency(n + 0.5, c, locale=to, format_type="name"), False
    yield from ((say, False) for say in _times())


def _times() -> Iterator[Callable[[str], str]]:
    from babel.dates import format_date, format_interval, format_skeleton, format_time, format_timedelta

    for day, style in product(DAYS[::4], ("medium", "long", "full")):
        yield lambda to, d=day, s=style: format_date(d, s, to)
    for day, skeleton in product(DAYS[::6], SKELETONS):
        yield lambda to, d=day, s=skeleton: format_skeleton(s, d, locale=to)
    for day, days in zip(DAYS[::4], cycle((3, 11, 19, 40, 75)), strict=False):
        yield lambda to, a=day, b=day + datetime.timedelta(days=days): format_interval(a, b, "yMMMd", locale=to)
    for hour, minute in product(range(24), range(0, 60, 5)):
        yield lambda to, t=datetime.time(hour, minute): format_time(t, "short", locale=to)
    for (unit, numbers), sign in product(SPANS.items(), (-1, 1)):
        for number in numbers:
            span = datetime.timedelta(**{unit: sign * number})
            yield lambda to, s=span: format_timedelta(s, add_direction=True, locale=to)


def _name(kind: str, code: str) -> Callable[[str], str]:
    from babel import Locale

    return lambda locale: getattr(Locale(locale), kind)[code]


def _drawn(codes: Sequence[str], count: int, size: int) -> list[tuple[str, ...]]:
    """Returns `size` combinations of `count` codes, drawn by hash."""
    return sorted(combinations(codes, count), key=lambda some: share(" ".join(some)))[:size]
