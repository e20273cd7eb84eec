"""Who may import whom: the order that keeps the package apart."""

from __future__ import annotations

import ast
from pathlib import Path

import msst_keras

PACKAGE = Path(msst_keras.__file__).parent
LEAVES = {"msst_keras.files", "msst_keras.progress"}
# Part -> what of the package it may import, beside itself and the leaves.
ALLOWED = {
    "msst_keras.model": set(),
    "msst_keras.motion": {"msst_keras.model.backbones"},
    "msst_keras.data": set(),
    "msst_keras.data.convert": {"msst_keras.motion", "msst_keras.data"},
    "msst_keras.data.shards": {"msst_keras.motion", "msst_keras.data"},
    "msst_keras.evaluation": set(),
    "msst_keras.labels": {
        "msst_keras.data.images", "msst_keras.data.layouts", "msst_keras.data.datasets", "msst_keras.motion.flow",
        "msst_keras.inference.stream", "msst_keras.web",
    },
    "msst_keras.web": set(),
    "msst_keras.training": {"msst_keras.data.pipeline", "msst_keras.model", "msst_keras.evaluation"},
    "msst_keras.inference": {"msst_keras.motion"},
    "msst_keras.serving": {"msst_keras.model", "msst_keras.motion", "msst_keras.inference"},
    "msst_keras.cli": {"msst_keras.tools"},
    "msst_keras.__main__": {"msst_keras.cli"},
}


def imported_modules(path):
    """(module, name or None) of every import statement of a file, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from ((node.module, alias.name) for alias in node.names)


def module_of(path):
    return ".".join(["msst_keras", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


def within(module, part):
    return module == part or module.startswith(part + ".")


def package_files():
    return [path for path in PACKAGE.rglob("*.py") if "tools" not in path.relative_to(PACKAGE).parts]


def test_parts_import_only_what_they_may():
    checked = 0
    for path in package_files():
        module = module_of(path)
        part = module if module in ALLOWED else ".".join(module.split(".")[:2])
        for target, name in imported_modules(path):
            if not within(target, "msst_keras"):
                continue
            full = f"{target}.{name}" if (PACKAGE.parent / target.replace(".", "/")).is_dir() else target
            allowed = ALLOWED.get(part, set()) | LEAVES | {part}
            assert any(within(full, other) for other in allowed), f"{module} must not import {full}"
            checked += 1
    assert checked > 20  # the walk found the package


def test_the_model_needs_keras_alone():
    for path in package_files():
        if within(module_of(path), "msst_keras.model") or module_of(path) == "msst_keras.motion.prior":
            found = {target.split(".")[0] for target, _ in imported_modules(path)}
            assert "tensorflow" not in found, path


def test_flags_live_in_tools_alone():
    for path in package_files():
        if path.name != "cli.py":
            assert not [target for target, _ in imported_modules(path) if within(target, "absl.flags")], path
            assert ("absl", "flags") not in set(imported_modules(path)), path
