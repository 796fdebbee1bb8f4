"""Hosts and their slots: hostfiles, filters, the pool a job runs on, and its ranks."""

from orchestrator.hosts.hostfile import Host, HostPool, local_pool, parse_hostfile, read_hostfile

__all__ = ["Host", "HostPool", "local_pool", "parse_hostfile", "read_hostfile"]
