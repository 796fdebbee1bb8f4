"""Tests; a package, so that `tests.testbed` is importable from every test and from the command line."""
