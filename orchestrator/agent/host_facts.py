"""What Linux counts of a host, read from its own files (proc(5)). Pure but for what names a path.

Counters only grow; what uses them takes the difference of two readings.
"""

from __future__ import annotations

import glob
import os

_SECTOR = 512  # bytes, whatever the disk's own are (Documentation/block/stat.rst of Linux)
_IB_WORD = 4  # bytes: port_xmit_data and port_rcv_data count in these (IBTA 1.3, PortCounters)
_IB = "/sys/class/infiniband/*/ports/*/counters/"
_NOT_DISKS = (
    "loop",
    "ram",
    "zram",
    "dm-",
    "md",
    "sr",
    "fd",
)  # no disks, or made of disks that count themselves


def cpu_ticks(text: str) -> int:
    """Return the ticks that all cores have worked, from /proc/stat; `user` has the guests' time in it."""
    user, nice, system, _idle, _iowait, irq, softirq, *steal = map(int, text.split("\n", 1)[0].split()[1:])
    return user + nice + system + irq + softirq + sum(steal[:1])


def memory(text: str) -> dict[str, int]:
    """Return `memory` (bytes in use that no cache would give back) and `memory_total`, from /proc/meminfo."""
    lines = (line.split() for line in text.splitlines())
    kilobytes = {words[0]: int(words[1]) for words in lines if len(words) > 1}
    total = kilobytes["MemTotal:"] * 1024
    return {"memory": total - kilobytes["MemAvailable:"] * 1024, "memory_total": total}


def network(text: str, physical: set[str]) -> dict[str, int]:
    """Return bytes `received` and `sent`, from /proc/net/dev.

    Args:
        text: of the file.
        physical: interfaces that are devices; where there are none (a container), all but `lo` count.
    """
    rows = [line.partition(":") for line in text.splitlines()[2:]]
    counts = {name.strip(): rest.split() for name, _, rest in rows}
    wanted = (set(counts) & physical) or set(counts) - {"lo"}
    return {
        "received": sum(int(counts[name][0]) for name in wanted),
        "sent": sum(int(counts[name][8]) for name in wanted),
    }


def disks(text: str, devices: set[str]) -> dict[str, int]:
    """Return bytes `read` and `written`, from /proc/diskstats, of whole disks (`devices`: /sys/block)."""
    rows = [line.split() for line in text.splitlines()]
    own = [row for row in rows if row[2] in devices and not row[2].startswith(_NOT_DISKS)]
    return {
        "read": sum(int(row[5]) for row in own) * _SECTOR,
        "written": sum(int(row[9]) for row in own) * _SECTOR,
    }


def read_text(path: str) -> str:
    """Return a small file's text; "" where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def counters() -> dict[str, float]:
    """Return what only grows: `cpu` (seconds of cores), bytes received, sent, read, written, where known."""
    found: dict[str, float] = {}
    stat = read_text("/proc/stat")
    if stat:
        found["cpu"] = cpu_ticks(stat) / os.sysconf("SC_CLK_TCK")
    net = read_text("/proc/net/dev")
    if net:
        found.update(network(net, _physical()))
        for name, counter in (("received", "port_rcv_data"), ("sent", "port_xmit_data")):
            found[name] += _infiniband(counter)
    stats = read_text("/proc/diskstats")
    if stats:
        found.update(disks(stats, _names("/sys/block")))
    return found


def _physical() -> set[str]:
    return {name for name in _names("/sys/class/net") if os.path.exists(f"/sys/class/net/{name}/device")}


def _names(folder: str) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def _infiniband(counter: str) -> int:
    """Return the bytes that a counter of all InfiniBand ports tells: the kernel sees nothing of RDMA."""
    words = (read_text(path).strip() for path in glob.glob(_IB + counter))
    return sum(int(word) for word in words if word.isdigit()) * _IB_WORD


def state(folder: str) -> dict[str, float]:
    """Return cores, load, memory, memory_total, and disk_free of the folder's disk; sizes in bytes."""
    found: dict[str, float] = {"cores": os.cpu_count() or 1}
    try:
        found["load"] = round(os.getloadavg()[0], 2)
        found.update(memory(read_text("/proc/meminfo")))
        disk = os.statvfs(folder)
        found["disk_free"] = disk.f_bavail * disk.f_frsize
    except (OSError, KeyError):
        pass
    return found
