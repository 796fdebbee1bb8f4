"""How the parts share the screen (Textual's CSS)."""

from __future__ import annotations

CSS = """
Screen { layout: vertical; background: $background; overflow: hidden; }
#head { height: 3; background: $panel; }
#upper { height: 9; max-height: 40%; }
#hosts { width: 1fr; }
#curves { width: 1fr; }
#host { height: 1; }
#lower { height: 1fr; }
#hosts, #curves, #ranks, #events, #log { border: round $primary; padding: 0 1; }
#hosts:focus, #ranks:focus, #events:focus, #log:focus { border: round $accent; }
#hosts, #ranks, #events, #log { scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0; }
#ranks, #events { width: 1fr; }
#log { height: 1fr; }
#filter { height: 3; }
.roomy #upper { height: 1.3fr; max-height: 100%; }
.roomy #lower { height: 1fr; }
.roomy #log { height: 1fr; }
ModalScreen { align: center middle; background: $background 60%; }
VerticalScroll { scrollbar-size-vertical: 1; }
.dialog { width: 90%; height: 85%; border: round $accent; padding: 0 1; background: $surface; }
.question { width: 60; height: auto; padding: 1 2; }
"""
