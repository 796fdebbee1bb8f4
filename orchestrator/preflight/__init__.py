"""`orchestrate check`: what would go wrong on the hosts, found out before a job waits for them."""
