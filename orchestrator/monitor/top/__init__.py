"""`orchestrate top`: one screen of a run, live or afterwards.

`reading` brings what is new in the run directory to `state`, which is made of plain values and knows no
terminal; its `Snapshot` is what `screen` and the panels draw. Only `app`, `panels`, `dialogs` and `web` need
Textual.
"""
