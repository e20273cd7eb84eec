"""What an operator copies from serving/: each file is read by the messages or rules that the server has for it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path, PurePath

import pytest
import yaml
from google.protobuf import text_format
from operator_messages import MESSAGES
from tensorflow_serving.config import model_server_config_pb2

from msst_keras.serving.checks import MAX_BATCH

FOLDER = Path(__file__).parents[2] / "serving"
IMAGE = re.compile(r"tensorflow/serving:2\.20\.0(-gpu)?")


def read_compose(*names):
    """The service's settings, a later file over an earlier one, as `docker compose -f A -f B` merges them."""
    merged = {}
    for name in names:
        merged |= yaml.safe_load((FOLDER / name).read_text())["services"]["serving"]
    return merged


def test_the_models_are_as_the_server_reads_them():
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((FOLDER / "models.config").read_text(), config)
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("msst", "/models/msst", "tensorflow")
    served = set(model.model_version_policy.specific.versions)
    assert dict(model.version_labels) == {"stable": 1} and set(model.version_labels.values()) <= served


def test_the_canary_of_the_comment_is_right_too():
    text = (FOLDER / "models.config").read_text()
    canary = "\n".join(re.findall(r"^#     (.+)$", text, re.MULTILINE))
    config = model_server_config_pb2.ModelConfig()
    text_format.Parse(canary, config)
    assert dict(config.version_labels) == {"stable": 1, "canary": 2}
    assert list(config.model_version_policy.specific.versions) == [1, 2]


def read_batching(name):
    return text_format.Parse((FOLDER / name).read_text(), MESSAGES["BatchingParameters"]())


def test_batches_are_what_the_model_takes():
    batching = read_batching("batching.gpu.config")
    sizes = list(batching.allowed_batch_sizes)
    # The server refuses a list that does not rise to the largest batch.
    assert sizes == sorted(set(sizes)) and sizes[-1] == batching.max_batch_size.value <= MAX_BATCH
    assert batching.num_batch_threads.value > 0 and not batching.pad_variable_length_inputs


def test_a_cpu_takes_what_the_model_takes_and_computes_it_in_turn():
    batching = read_batching("batching.cpu.config")
    assert batching.max_batch_size.value == MAX_BATCH and not batching.allowed_batch_sizes
    assert batching.enable_large_batch_splitting.value and batching.max_execution_batch_size.value == 1
    # Each row waits by itself, and the server refuses what finds the queue full.
    assert batching.batch_timeout_micros.value == 0 and batching.max_enqueued_batches.value >= 8 * MAX_BATCH
    assert batching.num_batch_threads.value > 0


def test_monitoring_is_on():
    monitoring = text_format.Parse((FOLDER / "monitoring.config").read_text(), MESSAGES["MonitoringConfig"]())
    assert monitoring.prometheus_config.enable and monitoring.prometheus_config.path == "/monitoring/metrics"


def test_a_field_that_no_server_knows_is_seen():
    with pytest.raises(text_format.ParseError, match="max_batch"):
        text_format.Parse("max_batch { value: 1 }", MESSAGES["BatchingParameters"]())


@pytest.mark.parametrize("names", [("compose.yaml",), ("compose.yaml", "compose.gpu.yaml")])
def test_the_compose_files_start_the_pinned_server_with_these_files(names):
    service = read_compose(*names)
    assert IMAGE.fullmatch(service["image"]) and service["image"].endswith("-gpu") == (len(names) == 2)
    flags = dict(flag.removeprefix("--").split("=") for flag in service["command"])
    mounted = dict(volume.split(":")[:2][::-1] for volume in service["volumes"])
    assert all(volume.endswith(":ro") for volume in service["volumes"])
    for name in ("model_config_file", "monitoring_config_file", "batching_parameters_file"):
        if name in flags:
            source = FOLDER / mounted["/config"] / Path(flags[name]).relative_to("/config")
            assert source.is_file(), name
    assert (FOLDER / mounted["/models"]).resolve() == FOLDER.parent / "saved_models"
    assert flags["rest_api_port"] == "8501" and flags["port"] == "8500"
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert flags["enable_batching"] == "true"
    assert flags["batching_parameters_file"].endswith(".gpu.config" if len(names) == 2 else ".cpu.config")


@pytest.mark.parametrize("names", [("compose.yaml",), ("compose.yaml", "compose.gpu.yaml")])
def test_a_server_starts_with_labels_of_versions_that_it_has_yet_to_load(names):
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((FOLDER / "models.config").read_text(), config)
    assert any(model.version_labels for model in config.model_config_list.config)
    assert "--allow_version_labels_for_unavailable_models=true" in read_compose(*names)["command"]


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.gpu"])
def test_the_images_of_the_package_copy_what_there_is(name):
    lines = (FOLDER / name).read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    ignored = (FOLDER.parent / ".dockerignore").read_text().split()
    assert {"setup.py", "msst_keras", "tools"} <= set(copied)
    for path in copied:
        assert (FOLDER.parent / path).exists() and path not in ignored
    setup = (FOLDER.parent / "setup.py").read_text()
    if name.endswith("gpu"):
        requirement = re.search(r'"tensorflow\[and-cuda\](\S+?)"', "\n".join(lines))[1]
        assert f'"tensorflow{requirement}"' in setup
    assert [line for line in lines if line.startswith("USER ")] == ["USER msst"]
    low, high = re.search(r"python_requires=\">=3\.(\d+),<3\.(\d+)\"", setup).groups()
    assert int(low) <= int(re.search(r"FROM python:3\.(\d+)", "\n".join(lines))[1]) < int(high)


def test_a_source_archive_holds_what_the_repository_does():
    """By MANIFEST.in, or by itself: the package and what setuptools always takes."""
    root = FOLDER.parent
    if not (root / ".git").exists() or not shutil.which("git"):
        pytest.skip("this is no clone of the repository")
    lines = (root / "MANIFEST.in").read_text().splitlines()
    rules = [line.split() for line in lines if line and not line.startswith("#")]
    named = {name for kind, *names in rules if kind == "include" for name in names}
    folders = {folder: patterns for kind, folder, *patterns in rules if kind == "recursive-include"}
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout.split()
    assert named <= set(listed) and set(folders) <= {PurePath(path).parts[0] for path in listed}
    missing = {
        path
        for path in set(listed) - named
        if not any(PurePath(path).match(pattern) for pattern in folders.get(PurePath(path).parts[0], ()))
    }
    whole = {path for path in missing if path.startswith(("msst_keras/", "tools/"))}
    itself = {"LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py"}
    assert missing - whole - itself == {".ci/run", ".gitignore"}
