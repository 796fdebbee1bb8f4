"""Tells whether this host gets at the models and data sets of a job: `reach REQUEST`.

The request: `names` (name, kind, where, revision; see preflight.names), `workdir` (where relative paths
begin) and `timeout` (seconds for one question to the hub). Each is looked for as a path, then in the hub's
cache, then on the hub itself, by the question its client would begin with.
"""

from __future__ import annotations

import os
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Dict, List

from orchestrator.preflight.probes import answers

from . import hub

_FIRST_FILE = {"dataset": "README.md"}
_PROXIES = ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")


def main(request: Dict[str, Any]) -> int:
    """Look for every name, all at once."""
    environ = dict(os.environ)
    found: List[Dict[str, Any]] = [{} for _ in request["names"]]

    def look(index: int) -> None:
        asked = request["names"][index]
        found[index] = dict(asked, **find(asked, request, environ))

    threads = [threading.Thread(target=look, args=(index,), daemon=True) for index in range(len(found))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    data = {
        "offline": hub.is_offline(environ),
        "cache": hub.caches(environ)[0],
        "endpoint": endpoint(environ),
        "proxy": next((name for name in _PROXIES if environ.get(name)), ""),
        "names": found,
    }
    answers.tell({"probe": "reach", "data": data})
    return 0


def find(asked: Dict[str, Any], request: Dict[str, Any], environ: Dict[str, str]) -> Dict[str, Any]:
    """Return how a name was found: `how` is path, cache, hub or ""; `lacks` names missing files."""
    path = os.path.join(request["workdir"], os.path.expanduser(asked["name"]))
    if os.path.exists(path):
        if not os.access(path, os.R_OK):
            return {"how": "", "path": path, "why": "may not be read"}
        whole = asked["kind"] == "path" or not os.path.isdir(path)
        return {"how": "path", "path": path, "lacks": [] if whole else hub.absent(path, asked["kind"])}
    if asked["kind"] == "path" or os.path.isabs(os.path.expanduser(asked["name"])):
        return {"how": "", "path": path, "why": "there is no such path"}
    return _in_cache(asked, environ) or _on_hub(asked, request["timeout"], environ)


def _in_cache(asked: Dict[str, Any], environ: Dict[str, str]) -> Dict[str, Any]:
    """Return the first complete copy in a cache, else what the first one lacks and how the hub answers."""
    kind, name = asked["kind"], asked["name"]
    partly: Dict[str, Any] = {}
    for cache in hub.caches(environ):
        folder = hub.snapshot(cache, kind, name, asked["revision"])
        if folder:
            lacks = hub.absent(folder, kind)
            if not lacks:
                return {"how": "cache", "path": folder, "lacks": []}
            partly = partly or {"path": folder, "lacks": lacks}
    if kind == "dataset" and hub.prepared_dataset(environ, name):
        return {"how": "cache", "path": hub.prepared_dataset(environ, name), "lacks": []}
    return dict(_on_hub(asked, 5.0, environ), **partly) if partly else {}


def endpoint(environ: Dict[str, str]) -> str:
    """Return where the hub is."""
    return (environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _on_hub(asked: Dict[str, Any], seconds: float, environ: Dict[str, str]) -> Dict[str, Any]:
    """Ask the hub for a first file; how it answers says whether the rest can be had."""
    if hub.is_offline(environ):
        return {"how": "", "why": "HF_HUB_OFFLINE is set"}
    kind = asked["kind"]
    folder = "datasets/" if kind == "dataset" else ""
    name, revision = (urllib.parse.quote(asked[key], safe="/") for key in ("name", "revision"))
    file = _FIRST_FILE.get(kind, "config.json")
    address = f"{endpoint(environ)}/{folder}{name}/resolve/{revision}/{file}"
    if not address.startswith(("http://", "https://")):
        return {"how": "", "why": f"HF_ENDPOINT {endpoint(environ)} is no http address"}
    request = urllib.request.Request(address, method="HEAD")  # noqa: S310 - checked above
    shown = hub.token(environ) if asked.get("sure", True) else ""  # a word of the script is no business of it
    if shown:
        request.add_unredirected_header("Authorization", f"Bearer {shown}")
    began = time.monotonic()
    try:
        with urllib.request.urlopen(request, timeout=seconds):  # noqa: S310 - as above
            return {"how": "hub", "seconds": round(time.monotonic() - began, 2)}
    except urllib.error.HTTPError as error:
        return _refused(error, shown=bool(shown))
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        why = getattr(reason, "strerror", None) or reason
        return {"how": "", "why": f"{endpoint(environ)} cannot be reached: {why}"}


def _refused(error: urllib.error.HTTPError, *, shown: bool) -> Dict[str, Any]:
    """Return what a refusal means: the hub says why in a header, and hides private names behind 401."""
    code = error.headers.get("X-Error-Code") or ""
    if code == "EntryNotFound":
        return {"how": "hub"}  # the name exists, without that file
    if code == "GatedRepo" or error.code == 403:
        return {
            "how": "",
            "refused": True,
            "why": f"the hub says HTTP {error.code}: access to it has to be asked for",
        }
    if error.code == 401 and not shown:
        why = "the hub says HTTP 401: there is no such name, or it is private and there is no token here"
        return {"how": "", "refused": True, "why": why}
    if error.code in (401, 404):
        return {
            "how": "",
            "refused": True,
            "why": f"the hub says HTTP {error.code}: there is no such name or revision",
        }
    return {"how": "", "why": f"the hub says HTTP {error.code} {error.reason}"}
