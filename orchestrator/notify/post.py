"""Post JSON to a web address."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from orchestrator import __version__
from orchestrator.notify.errors import DeliveryError

_SAID = 200  # characters of an answer that says why not
_AGAIN = {408, 425, 429}  # and all of 5xx


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """urllib would follow a redirect with a GET, which a webhook answers with 200 and takes for nothing."""

    def redirect_request(self, *_: Any) -> None:
        return None


def post(url: str, body: dict[str, Any], seconds: float) -> None:
    """Post a JSON object; proxies are those of the environment.

    Args:
        url: http or https.
        body: the object.
        seconds: most to wait for each answer of the network.

    Raises:
        DeliveryError: it was not taken. The words hold no part of the address but its host.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise DeliveryError("the address begins with neither https:// nor http://", again=False)
    head = {"Content-Type": "application/json", "User-Agent": f"orchestrate/{__version__}"}
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        request = urllib.request.Request(url, json.dumps(body).encode(), head)  # noqa: S310 - checked above
        with opener.open(request, timeout=seconds) as answer:
            answer.read(_SAID)
    except urllib.error.HTTPError as error:
        raise _refused(error) from None
    except urllib.error.URLError as error:
        raise DeliveryError(f"{_host(url)}: {_reason(error.reason)}", again=True) from None
    except (http.client.InvalidURL, ValueError) as error:  # whose words would hold the address
        raise DeliveryError(f"no address to post to: {type(error).__name__}", again=False) from None
    except (OSError, http.client.HTTPException) as error:
        raise DeliveryError(f"{_host(url)}: {_reason(error)}", again=True) from None


def _refused(error: urllib.error.HTTPError) -> DeliveryError:
    with error:
        said = error.read(_SAID).decode("utf-8", "replace").strip()
    words = f"HTTP {error.code} {error.reason}" + (f": {' '.join(said.split())}" if said else "")
    return DeliveryError(words, again=error.code in _AGAIN or error.code >= 500)


def _host(url: str) -> str:
    try:
        return urllib.parse.urlsplit(url).hostname or "?"
    except ValueError:
        return "?"


def _reason(error: object) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
