"""Models and data sets that a job names: whether a host gets at them."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from orchestrator.preflight import judge_reach
from tests.programs import answers, ask, write_programs

TOKEN = "hf_made-up"


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    return write_programs(tmp_path_factory.mktemp("programs"))


@pytest.fixture
def home(tmp_path):
    return tmp_path / "hf"


@pytest.fixture
def ask_for(programs, tmp_path, home):
    """Ask for one name, with a hub on a closed port unless told otherwise."""

    def asking(name: str, kind: str = "model", revision: str = "main", **environ: str):
        request = {
            "names": [{"name": name, "kind": kind, "where": "train.args[1]", "revision": revision}],
            "workdir": str(tmp_path),
            "timeout": 60.0,
        }
        base = {"PATH": os.environ["PATH"], "HF_HOME": str(home), "HF_ENDPOINT": "http://127.0.0.1:9"}
        return ask(programs, "reach", request, env={**base, **environ})

    return asking


def cached(home, name: str, files: dict[str, str], kind: str = "models", revision: str = "main"):
    """Lay a snapshot out as huggingface_hub does."""
    top = home / "hub" / f"{kind}--{name.replace('/', '--')}"
    (top / "refs").mkdir(parents=True)
    (top / "refs" / revision).write_text("abc123")
    (top / "blobs").mkdir()
    folder = top / "snapshots" / "abc123"
    folder.mkdir(parents=True)
    for number, (path, text) in enumerate(files.items()):
        (top / "blobs" / str(number)).write_text(text)
        (folder / path).symlink_to(f"../../blobs/{number}")
    return folder


INDEX = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})
WHOLE = {
    "config.json": "{}",
    "model.safetensors.index.json": INDEX,
    "model-1.safetensors": "x",
    "model-2.safetensors": "y",
}


def the_name(data):
    (found,) = data["names"]
    return found


def test_a_complete_model_is_found_in_the_cache(ask_for, home):
    folder = cached(home, "org/name", WHOLE)
    found = the_name(ask_for("org/name"))
    assert (found["how"], found["path"], found["lacks"]) == ("cache", str(folder), [])
    assert the_name(ask_for("org/name", revision="abc123"))["how"] == "cache"
    assert the_name(ask_for("org/name", revision="v2"))["how"] == ""


def test_the_cache_is_where_huggingface_hub_looks_for_it(ask_for, home):
    """The same layout, read by the real client."""
    from huggingface_hub import try_to_load_from_cache

    cached(home, "org/name", WHOLE)
    found = try_to_load_from_cache("org/name", "config.json", cache_dir=home / "hub")
    assert found == the_name(ask_for("org/name"))["path"] + "/config.json"


def test_a_shard_that_was_not_downloaded_is_named(ask_for, home):
    folder = cached(home, "org/name", WHOLE)
    (folder / "model-2.safetensors").resolve().unlink()  # the link stays and leads nowhere
    found = the_name(ask_for("org/name"))
    assert (found["how"], found["lacks"]) == ("", ["model-2.safetensors"])


@pytest.mark.parametrize(
    ("kind", "files", "how"),
    [
        ("config", {"config.json": "{}"}, "cache"),
        ("config", {"tokenizer.json": "{}"}, "cache"),
        ("config", {"README.md": ""}, ""),
        ("model", {"config.json": "{}"}, ""),
        ("model", {"config.json": "{}", "model.safetensors": "x"}, "cache"),
        ("model", {"config.json": "{}", "model.safetensors.index.json": "{"}, ""),
    ],
)
def test_what_is_enough_depends_on_what_is_wanted(ask_for, home, kind, files, how):
    cached(home, "org/name", files)
    assert the_name(ask_for("org/name", kind))["how"] == how


def test_data_sets_are_found_in_either_cache(ask_for, home):
    cached(home, "org/set", {"train.parquet": "x"}, kind="datasets")
    assert the_name(ask_for("org/set", "dataset"))["how"] == "cache"
    (home / "datasets" / "glue").mkdir(parents=True)
    assert the_name(ask_for("glue", "dataset"))["how"] == "cache"


def test_other_variables_move_the_cache(ask_for, home, tmp_path):
    cached(home, "org/name", WHOLE)
    moved = tmp_path / "moved"
    (home / "hub").rename(moved)
    assert the_name(ask_for("org/name"))["how"] == ""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE"):
        assert the_name(ask_for("org/name", **{variable: str(moved)}))["how"] == "cache", variable


def test_a_path_is_taken_from_the_workdir(ask_for, tmp_path):
    (tmp_path / "model").mkdir()
    assert the_name(ask_for("model"))["lacks"] == ["config.json", "weights"]
    (tmp_path / "train.json").write_text("[]")
    assert the_name(ask_for("train.json", "path"))["how"] == "path"
    assert the_name(ask_for("/nowhere/model"))["why"] == "there is no such path"


# -- the hub


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub with a public model, a public data set without README, a gated and a private model."""

    def do_HEAD(self):
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        code, header = {
            "/org/public/resolve/main/config.json": (200, ""),
            "/datasets/org/set/resolve/main/README.md": (404, "EntryNotFound"),
            "/org/gated/resolve/main/config.json": (403, "GatedRepo"),
            "/org/moved/resolve/main/config.json": (307, ""),
        }.get(self.path, (401, "RepoNotFound"))
        self.send_response(code)
        if code == 307:
            self.send_header("Location", "/org/public/resolve/main/config.json")
        if header:
            self.send_header("X-Error-Code", header)
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def ask_hub(ask_for, hub):
    def asking(name: str, kind: str = "model", **environ: str):
        return ask_for(name, kind, HF_ENDPOINT=f"http://127.0.0.1:{hub.server_port}/", **environ)

    return asking


def test_the_hub_is_asked_as_its_client_asks(ask_hub, hub):
    data = ask_hub("org/public")
    assert the_name(data)["how"] == "hub"
    assert hub.asked == [("/org/public/resolve/main/config.json", None)]
    assert the_name(ask_hub("org/set", "dataset"))["how"] == "hub"
    assert the_name(ask_hub("org/moved"))["how"] == "hub"


def test_gated_and_unknown_names_are_told_apart(ask_hub):
    assert "access to it has to be asked for" in the_name(ask_hub("org/gated"))["why"]
    assert "no token here" in the_name(ask_hub("org/private"))["why"]
    assert "no such name" in the_name(ask_hub("org/private", HF_TOKEN=TOKEN))["why"]


def test_a_token_is_shown_to_the_hub_and_told_to_nobody(ask_hub, hub, home):
    home.mkdir()
    (home / "token").write_text(TOKEN)
    data = ask_hub("org/public")
    assert hub.asked[0][1] == f"Bearer {TOKEN}"
    assert TOKEN not in json.dumps(data)


def test_offline_hosts_do_not_ask(ask_hub, hub):
    data = ask_hub("org/public", HF_HUB_OFFLINE="1")
    assert the_name(data)["how"] == ""
    assert hub.asked == []


def test_a_word_that_may_be_the_scripts_own_is_asked_for_without_the_token(programs, tmp_path, hub):
    asked = {"name": "bpe", "kind": "config", "where": "train.args[1]", "revision": "main", "sure": False}
    request = {"names": [asked], "workdir": str(tmp_path), "timeout": 60.0}
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "HF_TOKEN": TOKEN}
    environ["HF_ENDPOINT"] = f"http://127.0.0.1:{hub.server_port}"
    (tmp_path / "request.json").write_text(json.dumps(request))
    words = [sys.executable, str(programs), "reach", "request.json"]
    done = subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
    assert [token for _, token in hub.asked] == [None]
    (answer,) = answers(done.stdout)
    assert judged(answer["data"])[0][0].level in ("ok", "warn")


def test_a_proxy_that_is_set_is_used(ask_for, hub):
    """The address that the proxy is asked for is the whole one."""
    proxy = f"http://127.0.0.1:{hub.server_port}"
    ask_for("org/public", HF_ENDPOINT="http://hub.invalid", http_proxy=proxy)
    assert hub.asked[0][0] == "http://hub.invalid/org/public/resolve/main/config.json"


# -- findings


def judged(*hosts):
    made = [SimpleNamespace(name=f"node{i}", probes={"reach": data}) for i, data in enumerate(hosts, 1)]
    case = SimpleNamespace(hosts=made, with_data=lambda probe: {host.name: host for host in made})
    return list(judge_reach.reach(case)), judge_reach.facts(case)


def test_an_offline_host_without_the_model_is_bad(ask_for, home):
    found, facts = judged(ask_for("org/name"))
    assert [each.level for each in found] == ["bad"]
    assert found[0].what == (
        f"train.args[1]: org/name is not in {home}/hub, "
        "and http://127.0.0.1:9 cannot be reached: Connection refused"
    )
    assert "hf download org/name" in found[0].fix
    assert "HF_HUB_OFFLINE=1" in found[0].fix
    assert facts == {"reach": "org/name: not found on node1"}


def test_a_missing_shard_is_bad_where_the_hub_is_out_of_reach(ask_for, home):
    folder = cached(home, "org/name", WHOLE)
    (folder / "model-1.safetensors").unlink()
    found, _ = judged(ask_for("org/name", HF_HUB_OFFLINE="1"))
    assert "without model-1.safetensors, and HF_HUB_OFFLINE is set" in found[0].what
    assert found[0].fix.endswith("or unset HF_HUB_OFFLINE")


def test_a_cached_model_is_fine_and_a_download_by_many_hosts_is_told(ask_for, ask_hub, home):
    once = ask_hub("org/public")
    assert [each.level for each in judged(once)[0]] == ["ok"]
    assert [each.level for each in judged(once, once)[0]] == ["warn", "warn"]
    cached(home, "org/name", WHOLE)
    data = ask_for("org/name")
    found, facts = judged(data, data)
    assert [each.level for each in found] == ["ok", "ok"]
    assert facts == {"reach": "org/name: in the cache on all 2 hosts"}


def test_wrong_paths_and_names_are_bad_and_a_folder_that_lacks_files_a_warning(ask_for, ask_hub, tmp_path):
    (tmp_path / "model").mkdir()
    assert judged(ask_for("model"))[0][0].level == "warn"
    assert "share" in judged(ask_for("/nowhere/x", "path"))[0][0].fix
    assert "ask for access" in judged(ask_hub("org/gated"))[0][0].fix
