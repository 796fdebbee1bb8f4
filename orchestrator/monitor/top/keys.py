"""What keys do, for the application and for those who ask."""

from __future__ import annotations

from textual.binding import Binding

from orchestrator.monitor.top.snapshot import Mark

KEYS = [
    Binding("slash", "filter", "filter", key_display="/"),
    Binding("n", "problem", "problem"),
    Binding("e", "part('events')", "events", show=False),
    Binding("s", "part('ranks')", "slowest", show=False),
    Binding("l", "part('log')", "log", show=False),
    Binding("m", "curve", "curve"),
    Binding("z", "zoom", "zoom", show=False),
    Binding("left_square_bracket", "stream(-1)", "rank", show=False),
    Binding("right_square_bracket", "stream(1)", "rank", show=False),
    Binding("d", "diagnose", "diagnose"),
    Binding("c", "cancel", "cancel"),
    Binding("question_mark", "help", "help", key_display="?"),
    Binding("q", "quit", "quit"),
    Binding("ctrl+c", "quit", "quit", show=False, priority=True),  # Textual's own says only how to quit
    Binding("escape", "unfilter", "all hosts", show=False),
]

_HELP = """\
arrows    another host; Home, End, Page up, Page down
Enter     the log of the selected host
n         the next host with a problem
/         only some hosts: parts of names, rank:13, or states
          (slow, failed, hanging, problem); Esc shows all again
e s l     events, slowest ranks or log on a small screen
[ ]       log of one rank of the host, or of all
m z       the next curve; only the last steps of it
Tab       the next part of the screen: arrows scroll in it
d         what failed first, why, and what to try
c         end the run (asks first)
q         leave; the run goes on
"""


def help_text() -> str:
    """Return all keys and what the signs of the grid mean."""
    signs = "\n".join(f"{mark.sign}         {mark.word}" for mark in Mark)
    return f"{_HELP}\nhosts, by their sign\n{signs}"
