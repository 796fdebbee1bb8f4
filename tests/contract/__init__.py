"""One suite for every backend: the real command, real hosts, and what it must leave behind."""
