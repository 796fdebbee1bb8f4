"""This host's addresses and interfaces, and which of them leads to another host."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct

_SIOCGIFADDR = 0x8915  # linux/sockios.h


def addresses() -> dict[str, str]:
    """Return this host's addresses with the interface that has each: address -> interface."""
    found = dict(_ipv4())
    found.update(_ipv6())
    return found


def _ipv4() -> list[tuple[str, str]]:
    pairs = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
            except OSError:
                continue  # an interface without an IPv4 address
            pairs.append((socket.inet_ntoa(answer[20:24]), name))
    return pairs


def _ipv6() -> list[tuple[str, str]]:
    try:
        with open("/proc/net/if_inet6", encoding="ascii") as file:
            rows = [line.split() for line in file]
    except OSError:
        return []
    link_local = "20"  # scope column: such an address means nothing to another host
    return [(str(ipaddress.IPv6Address(int(row[0], 16))), row[5]) for row in rows if row[3] != link_local]


def is_loopback(address: str) -> bool:
    """Tell whether an address leads back to the host that uses it."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def interface_towards(address: str, port: int, timeout: float) -> tuple[str, str]:
    """Connect to another host and return (own address, interface) of the route taken.

    Raises:
        OSError: the address cannot be reached from here on that port.
    """
    with socket.create_connection((address, port), timeout=timeout) as connection:
        own = connection.getsockname()[0]
        own = own[7:] if own.startswith("::ffff:") else own
        return own, addresses().get(own, "")


def listen(port: int) -> socket.socket:
    """Listen on a port of every address (0: any free one), so that nothing else takes it meanwhile.

    Raises:
        OSError: the port is in use.
    """
    family = _family()
    return socket.create_server(
        ("", port), family=family, backlog=4096, dualstack_ipv6=family == socket.AF_INET6
    )


def _family() -> socket.AddressFamily:
    """Return the kind of socket that hears every address of this host."""
    return socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET


class HeldPort:
    """A port of every address that is kept for the ranks' store, and meanwhile listened on.

    Linux gives a port that is bound to nobody who asks for any free one, and lets another socket listen on it
    if both have SO_REUSEADDR, as torch's store has (2.13: c10d/socket.cpp, libuv); who has not is refused.

    Args:
        port: 0 for any free one.

    Raises:
        OSError: the port is in use.
    """

    def __init__(self, port: int) -> None:
        family = _family()
        self._bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                self._bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            self._bound.bind(("", port))
            self.number = int(self._bound.getsockname()[1])
            self._listening = listen(self.number)
        except OSError:
            self._bound.close()
            raise

    def stop_listening(self) -> None:
        """Let the store listen, and nobody else."""
        self._listening.close()

    def close(self) -> None:
        """Give the port back."""
        self._listening.close()
        self._bound.close()
