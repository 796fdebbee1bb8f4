"""Log in as ssh does: keys first, then what the server asks for; several factors one after the other."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import paramiko

    from orchestrator.launchers.remote import Target

    Ask = Callable[[str, bool], str]  # prompt, whether the answer may be seen -> answer

_TRIES = 3  # of a password, as ssh (NumberOfPasswordPrompts)
_PATIENCE = 600.0  # seconds for a person to type; the server ends it sooner (LoginGraceTime)


class Authentication:
    """One login: what paramiko 5.1 calls an auth strategy, which its own cannot be with two factors."""

    def __init__(self, target: Target, ask: Ask, say: Callable[[str], None]) -> None:
        self._target = target
        self._ask = ask
        self._say = say
        self._tried: set[str] = set()

    def authenticate(self, transport: paramiko.Transport) -> list[str]:
        """Log in over an open transport.

        Raises:
            AuthenticationException: the server takes nothing of what we have.
        """
        transport.auth_timeout = _PATIENCE
        wanted = self._first(transport)
        banner = transport.get_banner()
        if banner:
            self._say(banner.decode("utf-8", "replace").rstrip())
        ways = {
            "publickey": self._keys,
            "keyboard-interactive": self._questions,
            "password": self._password,
        }
        while wanted:
            way = next((name for name in ways if name in wanted and name not in self._tried), None)
            if way is None or not transport.is_active():
                self._give_up(wanted)
            done = ways[str(way)](transport)
            self._tried.add(str(way))  # once each: a second factor is another one
            if done is not None:
                wanted = done  # empty: we are in; else what the server wants in addition
        return []

    def _first(self, transport: paramiko.Transport) -> list[str]:
        """Return the ways that the server offers; none when it lets us in as we are."""
        import paramiko  # noqa: PLC0415 - imported when there is somewhere to log in

        try:
            transport.auth_none(self._target.user)
        except paramiko.BadAuthenticationType as error:
            return list(error.allowed_types)
        return []

    def _give_up(self, wanted: list[str]) -> None:
        import paramiko  # noqa: PLC0415

        tried = f"tried {', '.join(sorted(self._tried))}; " if self._tried else ""
        raise paramiko.AuthenticationException(f"{tried}the server wants {' or '.join(wanted)}")

    def _keys(self, transport: paramiko.Transport) -> list[str] | None:
        for key in self._known_keys():
            if not transport.is_active():
                break
            with _refused():
                return list(transport.auth_publickey(self._target.user, key))
        return None

    def _known_keys(self) -> Iterator[paramiko.PKey]:
        """Yield the agent's keys, then those of the files ssh would try."""
        files = self._target.paths("identityfile")
        only = self._target.first("identitiesonly", "no") == "yes"
        if self._target.first("identityagent", "SSH_AUTH_SOCK") != "none":
            yield from _agent_keys(_public_halves(files) if only else None)
        for path in files:
            key = self._load(path)
            if key is not None:
                yield key

    def _load(self, path: str) -> paramiko.PKey | None:
        """Read a private key; ask for its passphrase where it has one."""
        import paramiko  # noqa: PLC0415

        for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
            try:
                key = _read(kind, path, None)
            except paramiko.PasswordRequiredException:
                return self._load_locked(kind, path)
            except (paramiko.SSHException, OSError, ValueError):
                continue
            return key
        return None

    def _load_locked(self, kind: Any, path: str) -> paramiko.PKey | None:
        import paramiko  # noqa: PLC0415

        for _ in range(_TRIES):
            phrase = self._ask(f"Enter passphrase for key '{path}': ", False)
            if not phrase:
                return None
            with contextlib.suppress(paramiko.SSHException, ValueError):
                return _read(kind, path, phrase)
        return None

    def _questions(self, transport: paramiko.Transport) -> list[str] | None:
        """Answer what the server asks: a password, a code, or whatever it likes."""
        broken: list[OSError] = []

        def answer(title: str, instructions: str, prompts: list[tuple[str, bool]]) -> list[str]:
            try:
                return self._answers([title, instructions], prompts)
            except OSError as error:  # in paramiko's own thread, where nobody would see it
                broken.append(error)
                transport.close()
                return []

        for _ in range(_TRIES):
            if broken:
                raise broken[0]
            if not transport.is_active():
                break
            with _refused():
                return list(transport.auth_interactive(self._target.user, answer))
        return None

    def _answers(self, texts: list[str], prompts: list[tuple[str, bool]]) -> list[str]:
        for text in texts:
            if text.strip():
                self._say(text.strip())
        return [self._ask(f"({self._who()}) {prompt}", bool(echo)) for prompt, echo in prompts]

    def _password(self, transport: paramiko.Transport) -> list[str] | None:
        for _ in range(_TRIES):
            if not transport.is_active():
                break
            word = self._ask(f"{self._who()}'s password: ", False)
            with _refused():
                return list(transport.auth_password(self._target.user, word, fallback=False))
        return None

    def _who(self) -> str:
        return f"{self._target.user}@{self._target.hostname}"


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    """Pass over a refusal: the next key or the next try follows."""
    import paramiko  # noqa: PLC0415

    try:
        yield
    except paramiko.AuthenticationException:
        return


def _read(kind: Any, path: str, phrase: str | None) -> paramiko.PKey:
    key: paramiko.PKey = kind.from_private_key_file(path, phrase)
    if Path(f"{path}-cert.pub").is_file():
        key.load_certificate(f"{path}-cert.pub")
    return key


def _agent_keys(only: set[str] | None) -> list[Any]:
    """Return the keys of the user's agent; with `only`, those whose public half is among them."""
    import paramiko  # noqa: PLC0415

    try:
        keys = paramiko.Agent().get_keys()
    except (paramiko.SSHException, OSError):
        return []
    return [key for key in keys if only is None or key.get_base64() in only]


def _public_halves(files: list[str]) -> set[str]:
    found = set()
    for path in files:
        with contextlib.suppress(OSError, IndexError):
            found.add(Path(f"{path}.pub").read_text(encoding="utf-8", errors="replace").split()[1])
    return found
