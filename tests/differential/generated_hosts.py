"""Random hostfiles and filters: legitimate ones, and the same with mistakes in them."""

from __future__ import annotations


def legitimate_hostfile(rng):
    names = _distinct_names(rng, rng.randint(1, 6))
    lines = [_legitimate_line(rng, name) for name in names]
    for _ in range(rng.randint(0, 3)):
        lines.insert(
            rng.randint(0, len(lines)), rng.choice(["", "   ", "\t", "# a comment", "  # w slots=4", "#"])
        )
    return rng.choice(["\n", "\n", "\r\n"]).join(lines) + rng.choice(["", "\n", "\n\n"])


def _legitimate_line(rng, name):
    count = rng.choice([1, 2, 3, 4, 8, 16, 128, "08"])
    keys = ["", "", "", f"max_slots={128 + int(count)}", "port=22", "address=10.1.2.3", "user=trainer"]
    comment = rng.choice(["", "", "", "# c", "#c", "# slots=9"])
    gap, lead = rng.choice([" ", "\t", "   ", " \t "]), rng.choice(["", "", " ", "\t"])
    return f"{lead}{name}{gap}slots={count} {rng.choice(keys)} {comment}{rng.choice(['', ' '])}"


def damaged_hostfile(rng):
    lines = legitimate_hostfile(rng).split("\n")
    if rng.random() < 0.4:
        lines.append(rng.choice(_BAD_LINES))
    if rng.random() < 0.2:
        lines.append(rng.choice(_ADDED_LINES))
    if rng.random() < 0.15:
        repeated = rng.choice(lines)
        lines.append(repeated if rng.random() < 0.5 else repeated.upper().replace("SLOTS", "slots"))
    text = "\n".join(lines)
    if rng.random() < 0.5:
        text = _damaged(rng, text, "  \t\n#=:@,[]-^/0459xsé")
    return "\ufeff" + text if rng.random() < 0.03 else text


_BAD_LINES = """\
w|w 4|w:4|w gpus=4|w slots = 4|w slots=-1|this is bad slots=1|w slots=|slots=4|w slots:4|w slots=4x
w slots=4,arch=a100|w slots=4 slots=8|w slots=0|w slots=99999|w slots=\u0664|w slots=4 junk|w slots=4 port=x
-w slots=4|^w slots=4|/w/ slots=4|a,b slots=4|ssh:w slots=4|w:22 slots=4|w$x slots=2|n[1 slots=2
n[2-1] slots=2|w Slots=4|w slots=4 max_slots=2|w slots=4;|w port=22 slots=4""".replace("\n", "|").split("|")
_ADDED_LINES = [
    "u@v slots=4",
    "n[1-4] slots=4",
    "[::1] slots=2",
    "fe80::1 slots=2",
    "[::1]:2222 slots=2",
    "u@n[1-2] slots=1",
]


def _distinct_names(rng, count):
    found = {}
    while len(found) < count:
        number = rng.choice(["", rng.randint(0, 12), f"{rng.randint(0, 200):03d}"])
        stem = rng.choice(["worker-", "node", "w", "W", "gpu_", "10.0.0.", "a.b-c", "rack1-node"])
        name = f"{stem}{number}{rng.choice(['', '', '.cluster'])}".rstrip("-.")
        found.setdefault(name.lower(), name)
    return list(found.values())


def random_pool(rng):
    return {name: rng.choice([1, 2, 4, 8]) for name in _distinct_names(rng, rng.randint(1, 5))}


def legitimate_filter(rng, pool):
    names = rng.sample(list(pool), rng.randint(1, len(pool)))
    specs = [_legitimate_spec(rng, name, pool[name]) for name in names]
    if rng.random() < 0.2:  # one host in two specs of a kind
        again = rng.choice(specs)
        specs.append(again if ":" not in again else f"{again.partition(':')[0]}:0")
    rng.shuffle(specs)
    return "@".join(specs)


def damaged_filter(rng, pool):
    text, name = legitimate_filter(rng, pool), rng.choice(list(pool))
    if rng.random() < 0.3:
        added = [
            f"{name}:0",
            name,
            f"{name}:0-1",
            f"{name}:-0",
            f"{name}:+0",
            f"{name}: 0",
            f"{name}-[0-1]",
            f"[{name}]",
        ]
        text += "@" + rng.choice(added)
    return _damaged(rng, text, "@@::,,,--[]01239 wW_+é") if rng.random() < 0.6 else text


def _legitimate_spec(rng, name, count):
    if rng.random() < 0.4:
        return name
    top = count - 1 if rng.random() < 0.95 else count
    return f"{name}:{','.join(str(rng.randint(0, top)) for _ in range(rng.randint(1, 4)))}"


def _damaged(rng, text, alphabet):
    """Insert, delete or replace one to three characters."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randint(0, len(text))
        text = text[:at] + rng.choice([rng.choice(alphabet), ""]) + text[at + rng.randint(0, 1) :]
    return text or rng.choice(alphabet)
