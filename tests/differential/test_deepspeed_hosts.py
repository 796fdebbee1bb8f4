"""The same hostfiles and filters through DeepSpeed's own functions and through ours.

Where both accept, the pools are the same. Where DeepSpeed refuses, so do we, unless the text uses one of our
additions. Where we refuse and DeepSpeed accepts, the text is in one of the classes of nonsense below; the
classes are written here a second time, from the outside, so that they can disagree with the parser.
"""

from __future__ import annotations

import io
import logging
import random
import re
from collections import Counter, OrderedDict

import pytest
from generated_hosts import (
    damaged_filter,
    damaged_hostfile,
    legitimate_filter,
    legitimate_hostfile,
    random_pool,
)
from needs import needs

from orchestrator.errors import FilterError, HostfileError
from orchestrator.hosts import Host, HostPool, parse_hostfile
from orchestrator.hosts.filters import apply_filters

installed = needs("deepspeed.launcher.runner")
ROUNDS = 6000

HOSTFILE_NONSENSE = {
    "byte order mark": lambda text: text.startswith("\ufeff"),
    "no slots or too many": lambda text: any(not 1 <= n <= 4096 for n in _slot_numbers(text)),
    "digits of another script": lambda text: any(not digits.isascii() for digits in _slot_digits(text)),
    "junk after slots=N": lambda text: any(_is_junk(tail) for tail in _tails(text)),
    "same host in two spellings": lambda text: len({n.lower() for n in _names(text)}) < len(_names(text)),
    "not a host name, or read anew by pdsh": lambda text: not all(map(_is_target, _names(text))),
    "range that is malformed, or meets another line": lambda text: any("[" in name for name in _names(text)),
    "user or port said twice": lambda text: any(_says_twice(entry) for entry in _entries(text)),
}
HOSTFILE_ADDITIONS = re.compile(r"^[ \t]*\S*[@\[]", re.MULTILINE)

FILTER_NONSENSE = {
    "a host as a whole and with slots": lambda pool, text, result: _is_ambiguous(text),
    "no host left": lambda pool, text, result: not result,
    "what int() forgives": lambda pool, text, result: re.search(
        r"[:,]\s*[-+]|[:,]\s|\s[,@]|\s$|[0-9]_[0-9]", text
    ),
}
FILTER_ADDITIONS = re.compile(r"\[|[:,][0-9]+-[0-9]")


@pytest.fixture(autouse=True, scope="module")
def _quiet_deepspeed(installed):
    """Switch off DeepSpeed's log line for each refused text."""
    from deepspeed.launcher import runner

    level = runner.logger.level
    runner.logger.setLevel(logging.CRITICAL + 1)
    yield
    runner.logger.setLevel(level)


def test_hostfiles_of_legitimate_lines_give_the_same_pool():
    rng = random.Random(101)
    for _ in range(ROUNDS):
        text = legitimate_hostfile(rng)
        assert _ours_hostfile(text) == _theirs_hostfile(text), text


def test_hostfiles_with_mistakes_differ_only_in_listed_classes():
    rng = random.Random(102)
    seen = Counter()
    for _ in range(ROUNDS):
        text = damaged_hostfile(rng)
        ours, theirs = _ours_hostfile(text), _theirs_hostfile(text)
        seen[ours is not None, theirs is not None] += 1
        if ours is None and theirs is not None:
            classes = [name for name, applies in HOSTFILE_NONSENSE.items() if applies(text)]
            assert classes, f"refused without a reason that is listed: {text!r}"
            seen.update(classes)
        elif ours is not None and not HOSTFILE_ADDITIONS.search(text):
            assert ours == theirs, text
        else:
            assert ours is None or theirs is not None, f"accepted, but DeepSpeed refuses it: {text!r}"
    assert seen[False, True] > 100, seen
    assert seen[True, True] > 100, seen
    assert seen[False, False] > 100, seen
    assert all(seen[name] for name in HOSTFILE_NONSENSE), seen


@pytest.mark.parametrize("kind", ["include", "exclude"])
def test_filters_made_by_the_grammar_give_the_same_pool(kind):
    rng = random.Random(103)
    compared = 0
    for _ in range(ROUNDS):
        pool = random_pool(rng)
        text = legitimate_filter(rng, pool)
        theirs = _theirs_filter(pool, kind, text)
        if theirs:
            assert _ours_filter(pool, kind, text) == theirs, (pool, text)
            compared += 1
        else:
            assert _ours_filter(pool, kind, text) is None, (pool, text)
    assert compared > ROUNDS / 2


@pytest.mark.parametrize("kind", ["include", "exclude"])
def test_filters_with_mistakes_differ_only_in_listed_classes(kind):
    rng = random.Random(104)
    seen = Counter()
    for _ in range(ROUNDS):
        pool = random_pool(rng)
        text = damaged_filter(rng, pool)
        ours, theirs = _ours_filter(pool, kind, text), _theirs_filter(pool, kind, text)
        seen[ours is not None, theirs is not None] += 1
        if ours is None and theirs is not None:
            classes = [name for name, applies in FILTER_NONSENSE.items() if applies(pool, text, theirs)]
            assert classes, f"refused without a reason that is listed: {pool} {text!r}"
            seen.update(classes)
        elif ours is not None and theirs is None:
            assert FILTER_ADDITIONS.search(text), f"accepted, but DeepSpeed refuses it: {pool} {text!r}"
        else:
            assert ours == theirs, (pool, text)
    expected = set(FILTER_NONSENSE) - ({"no host left"} if kind == "include" else set())
    assert seen[True, True] > 100, seen
    assert seen[False, False] > 100, seen
    assert all(seen[name] for name in expected), seen


def test_additions_are_refused_by_deepspeed_and_so_cannot_change_a_filter_it_takes():
    pool = {"worker-0": 4, "worker-1": 4, "fe80::1": 2}
    for text in ["worker-[0-1]", "worker-[0,1]:0", "worker-0:0-3", "[fe80::1]:0", "[fe80::1]"]:
        assert _theirs_filter(pool, "include", text) is None
        assert _ours_filter(pool, "include", text)


def _ours_hostfile(text):
    try:
        return [(host.name, len(host.slots)) for host in parse_hostfile(text, "hostfile").hosts]
    except HostfileError:
        return None


def _theirs_hostfile(text):
    from deepspeed.launcher import runner

    try:
        return list(runner._parse_hostfile(io.StringIO(text, newline=None).readlines()).items())
    except ValueError:
        return None


def _ours_filter(counts, kind, text):
    pool = HostPool(tuple(Host(name, tuple(range(count))) for name, count in counts.items()))
    try:
        return [(host.name, list(host.slots)) for host in apply_filters(pool, **{kind: text}).hosts]
    except FilterError:
        return None


def _theirs_filter(counts, kind, text):
    from deepspeed.launcher import runner

    chosen = {"inclusion": "", "exclusion": ""} | {kind.removesuffix("de") + "sion": text}
    try:
        return list(runner.parse_inclusion_exclusion(OrderedDict(counts), **chosen).items())
    except ValueError:
        return None


def _entries(text):
    lines = [line.strip() for line in io.StringIO(text, newline=None)]
    found = [re.match(r"(\S+)\s+slots=(\d+)(.*)", line) for line in lines if not line.startswith("#")]
    return [match for match in found if match]


def _names(text):
    return [match[1] for match in _entries(text)]


def _slot_digits(text):
    return [match[2] for match in _entries(text)]


def _slot_numbers(text):
    return [int(digits) for digits in _slot_digits(text)]


def _tails(text):
    return [(match[2], match[3]) for match in _entries(text)]


def _is_target(target):
    user, at, name = target.rpartition("@")
    if at and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._+-]*\$?", user):
        return False
    name = re.sub(r"\[[0-9,-]+\]", "0", name)
    plain = re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name)
    return plain or re.fullmatch(r"fe80::[0-9]+|\[::[0-9]+\](:[0-9]{2,4})?", name)


def _says_twice(entry):
    target, tail = entry[1], entry[3]
    return ("@" in target and "user=" in tail) or ("]:" in target and "port=" in tail)


def _is_junk(entry):
    digits, tail = entry
    if tail and not tail[0].isspace() and tail[0] != "#":
        return True
    words = tail.partition("#")[0].split()
    keys = [word.partition("=")[0] for word in words]
    return len(set(keys)) < len(keys) or not all(_is_key(word, int(digits)) for word in words)


def _is_key(word, slots):
    key, _, value = word.partition("=")
    if key in {"max_slots", "port"} and re.fullmatch(r"[0-9]{1,9}", value):
        low, high = (slots, 4096) if key == "max_slots" else (1, 65535)
        return low <= int(value) <= high
    patterns = {"address": r"[0-9a-z][0-9a-z.-]*", "user": r"[0-9a-z][0-9a-z-]*"}
    return re.fullmatch(patterns.get(key, r"\b\B"), value) is not None


def _is_ambiguous(text):
    specs = [spec.partition(":") for spec in text.split("@")]
    whole = {name for name, colon, _ in specs if not colon}
    return any(colon and name in whole for name, colon, _ in specs)
