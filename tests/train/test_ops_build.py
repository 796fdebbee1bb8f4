"""The check of DeepSpeed's operators beside the real torch, DeepSpeed, ninja and g++."""

from __future__ import annotations

import os

import pytest

from tests.programs import CPU_ADAM, ask, environment, write_programs
from tests.testbed import processes

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    return write_programs(tmp_path_factory.mktemp("programs"))


@pytest.fixture
def compiler(tmp_path):
    """Return a function that makes a compiler which does something else where g++ would compile a file."""

    def make(instead: str) -> str:
        path = tmp_path / "c++"
        path.write_text(f'#!/bin/sh\ncase " $* " in *" -c "*) {instead};; esac\nexec g++ "$@"\n')
        path.chmod(0o755)
        return str(path)

    return make


def test_this_machine_is_read_without_importing_torch(programs):
    import torch

    data = ask(programs, "ops", CPU_ADAM, env=environment())
    assert data["device"] == "cpu"
    assert data["torch"] == torch.__version__
    assert data["torch_cuda"] == (torch.version.cuda or "")
    assert data["deepspeed"]
    assert data["cpu"]
    assert "1" in data["tools"]["g++"]


def test_the_folder_is_the_one_that_torch_would_take(programs, tmp_path):
    from torch.utils.cpp_extension import _get_build_directory

    data = ask(programs, "ops", CPU_ADAM, env=environment(XDG_CACHE_HOME=str(tmp_path)))
    before = {name: os.environ.pop(name, None) for name in ("TORCH_EXTENSIONS_DIR", "XDG_CACHE_HOME")}
    os.environ["XDG_CACHE_HOME"] = str(tmp_path)
    try:
        assert _get_build_directory("cpu_adam", verbose=False) == data["ops"]["cpu_adam"]["folder"]
    finally:
        os.environ.update({name: value for name, value in before.items() if value is not None})
        if before["XDG_CACHE_HOME"] is None:
            del os.environ["XDG_CACHE_HOME"]


MODULE = """
#include <Python.h>
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "cpu_adagrad"};
PyMODINIT_FUNC PyInit_cpu_adagrad() { return PyModule_Create(&definition); }
"""


def test_an_operator_is_built_and_then_ready(programs, tmp_path, compiler):
    """DeepSpeed itself then loads it without compiling again.

    In the place of its one source file g++ gets a module of three lines: torch's headers would take it half a
    minute.
    """
    source = tmp_path / "small.cpp"
    source.write_text(MODULE)
    instead = f'for word do shift; case $word in *.cpp) word={source};; esac; set -- "$@" "$word"; done'
    environ = environment(TORCH_EXTENSIONS_DIR=str(tmp_path), CXX=compiler(instead))
    request = {"ops": {"cpu": ["cpu_adagrad"]}, "build": ["cpu_adagrad"], "seconds": 280}
    data = ask(programs, "ops", request, env=environ)
    assert data["built"]["cpu_adagrad"]["words"] == []
    assert data["built"]["cpu_adagrad"]["ok"] is True
    state = data["ops"]["cpu_adagrad"]
    assert (state["cached"], state["locked"]) == (True, None)
    before = (tmp_path / "cpu_adagrad/cpu_adagrad.so").stat().st_mtime_ns
    again = ask(programs, "ops", request, env=environ)
    assert again["built"]["cpu_adagrad"]["ok"] is True
    assert (tmp_path / "cpu_adagrad/cpu_adagrad.so").stat().st_mtime_ns == before


def test_a_failed_build_tells_the_compilers_words_and_leaves_no_lock(programs, tmp_path, compiler):
    """A compiler that finds a mistake, as one without a header does."""
    words = "cpu_adam.cpp:7:10: fatal error: no.h: No such file"
    environ = environment(
        TORCH_EXTENSIONS_DIR=str(tmp_path / "x"), CXX=compiler(f"echo '{words}' >&2; exit 1")
    )
    data = ask(programs, "ops", {**CPU_ADAM, "build": ["cpu_adam"], "seconds": 120}, env=environ)
    assert data["built"]["cpu_adam"]["ok"] is False
    assert words in data["built"]["cpu_adam"]["words"]
    state = data["ops"]["cpu_adam"]
    assert (state["cached"], state["locked"]) == (False, None)


def test_a_build_that_takes_too_long_is_ended_and_leaves_no_lock(programs, tmp_path, compiler):
    began = tmp_path / "began"
    environ = environment(TORCH_EXTENSIONS_DIR=str(tmp_path / "x"), CXX=compiler(f"touch {began}; sleep 600"))
    for seconds in (30, 240):  # until it is compiling: importing DeepSpeed takes a busy machine long
        data = ask(programs, "ops", {**CPU_ADAM, "build": ["cpu_adam"], "seconds": seconds}, env=environ)
        if began.exists():
            break
    assert began.exists()
    assert data["built"]["cpu_adam"]["words"][0] == f"it did not end in {seconds} s"
    assert data["ops"]["cpu_adam"]["locked"] is None
    assert processes.find(str(tmp_path)) == []  # nor of ninja's compilers
