"""Watch a run from its directory alone: status, logs, follow, cancel."""
