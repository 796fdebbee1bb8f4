"""Send a mail, through a mail server or the machine's own sendmail."""

from __future__ import annotations

import getpass
import shutil
import smtplib
import socket
import ssl
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.notify import bodies
from orchestrator.notify.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from email.message import EmailMessage

    from orchestrator.notify.message import Message

_PLACES = ("/usr/sbin/sendmail", "/usr/lib/sendmail")  # seldom on a user's PATH
_TLS_PORT, _PORT = 465, 25


def send_mail(
    message: Message, to: Sequence[str], options: Mapping[str, str], password: str | None, seconds: float
) -> None:
    """Send one mail.

    Args:
        message: what it says.
        to: the addresses.
        options: smtp (HOST or HOST:PORT), sender, user; each may be absent.
        password: of that user.
        seconds: most to wait for each answer of the server.

    Raises:
        DeliveryError: it was not taken.
    """
    sender = options.get("sender") or f"{_user()}@{socket.getfqdn()}"
    mail = bodies.mail(message, sender, to)
    try:
        if "smtp" in options:
            _by_server(mail, options, password, seconds)
        else:
            _by_sendmail(mail, seconds)
    except (smtplib.SMTPServerDisconnected, smtplib.SMTPConnectError) as error:
        raise DeliveryError(f"{options.get('smtp')}: {error}", again=True) from None
    except smtplib.SMTPException as error:
        raise DeliveryError(f"{options.get('smtp')}: {_said(error)}", again=_is_temporary(error)) from None
    except ssl.SSLCertVerificationError as error:
        what = f"{options.get('smtp')}: its certificate is not trusted ({error.verify_message})"
        fix = "a password goes to a trusted server only; SSL_CERT_FILE=FILE names those to trust"
        raise DeliveryError(f"{what}; {fix}", again=False) from None
    except OSError as error:
        where = options.get("smtp", "sendmail")
        raise DeliveryError(f"{where}: {error.strerror or error}", again=True) from None


def _by_server(mail: EmailMessage, options: Mapping[str, str], password: str | None, seconds: float) -> None:
    host, port = _server(options["smtp"])
    if port == _TLS_PORT:
        with smtplib.SMTP_SSL(host, port, timeout=seconds, context=ssl.create_default_context()) as server:
            _hand_over(server, mail, options, password)
        return
    with smtplib.SMTP(host, port, timeout=seconds) as server:
        server.ehlo()
        if server.has_extn("starttls"):
            server.starttls(context=_context(sure=password is not None))
        elif password is not None:
            raise DeliveryError(f"{host} offers no TLS, and a password is not sent without", again=False)
        _hand_over(server, mail, options, password)


def _context(*, sure: bool) -> ssl.SSLContext:
    """Return how to speak TLS; where no password is at stake a mail server may be whoever it says.

    Mail servers within a site often have certificates that they made themselves (Debian's postfix does), and
    one that offers no TLS at all would be taken too (RFC 7435: opportunistic security).
    """
    context = ssl.create_default_context()
    if not sure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _hand_over(
    server: smtplib.SMTP, mail: EmailMessage, options: Mapping[str, str], password: str | None
) -> None:
    if password is not None:
        server.login(options["user"], password)
    refused = server.send_message(mail)
    if refused:  # by some of them; the others would get it twice if it were tried again
        raise DeliveryError(f"refused for {', '.join(refused)}", again=False)


def _server(text: str) -> tuple[str, int]:
    """Read HOST, HOST:PORT or [ADDRESS]:PORT."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or (":" in host and not host.startswith("[")):
        return text.strip("[]"), _PORT
    return host.strip("[]"), int(port)


def _by_sendmail(mail: EmailMessage, seconds: float) -> None:
    program = shutil.which("sendmail") or next((p for p in _PLACES if Path(p).is_file()), None)
    if program is None:
        what = f"no sendmail on {socket.gethostname()}; name a mail server: smtp: HOST"
        raise DeliveryError(what, again=False)
    try:
        done = subprocess.run(
            [program, "-t", "-i"], input=bytes(mail), capture_output=True, check=False, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise DeliveryError(f"sendmail took longer than {seconds:g} s", again=True) from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()[-200:]
        raise DeliveryError(f"sendmail ended with {done.returncode}: {said}", again=done.returncode == 75)


def _said(error: smtplib.SMTPException) -> str:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        told = error.recipients.items()
        return ", ".join(f"{code} {said.decode('utf-8', 'replace')} ({to})" for to, (code, said) in told)
    said = getattr(error, "smtp_error", b"") or str(error)
    code = getattr(error, "smtp_code", "")
    return f"{code} {said.decode('utf-8', 'replace') if isinstance(said, bytes) else said}".strip()


def _is_temporary(error: smtplib.SMTPException) -> bool:
    """Tell a 4xx answer (RFC 5321: transient) from one that stays."""
    codes = (
        [code for code, _ in error.recipients.values()]
        if isinstance(error, smtplib.SMTPRecipientsRefused)
        else [getattr(error, "smtp_code", 500)]
    )
    return all(400 <= int(code) < 500 for code in codes)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "orchestrate"
