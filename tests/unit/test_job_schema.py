from __future__ import annotations

import json
import subprocess
import sys

from click.testing import CliRunner

from orchestrator.cli.schema import schema_command
from orchestrator.job import JobSpec, job_schema


def _descriptions(schema, path=()):
    if isinstance(schema, dict):
        for name, field in schema.get("properties", {}).items():
            yield (*path, name), field.get("description", "")
        for key, value in schema.items():
            yield from _descriptions(value, (*path, key))


def test_the_schema_describes_every_key():
    schema = job_schema()
    described = dict(_descriptions(schema))
    assert len(described) > 70
    assert [path for path, text in described.items() if not text.strip()] == []
    assert (schema["$schema"], schema["title"]) == (
        "https://json-schema.org/draft/2020-12/schema",
        "Training job",
    )
    assert set(schema["required"]) == {"cluster", "train"}
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == set(JobSpec.model_fields)


def test_the_schema_command_prints_the_schema():
    result = CliRunner().invoke(schema_command)
    assert result.exit_code == 0
    assert json.loads(result.output) == job_schema()


def test_importing_the_models_imports_no_training_package_and_no_yaml():
    heavy = {"torch", "deepspeed", "accelerate", "submitit", "paramiko", "yaml", "jinja2"}
    code = f"import sys, orchestrator.job; print(sorted({heavy!r} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
