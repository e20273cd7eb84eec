"""Who may import whom: the order that keeps the package apart."""

from __future__ import annotations

import ast
import collections
import graphlib
import statistics
import subprocess
import sys
from pathlib import Path

import msst_keras
from msst_keras import tools

PACKAGE = Path(msst_keras.__file__).parent
# Room, or one module of it -> what of the package it may import beside its own room and what all may import.
FOR_ALL = {
    "msst_keras.files",
    "msst_keras.progress",
    "msst_keras.processes",
    "msst_keras.options",
    "msst_keras.quiet_start",
    "msst_keras.locks",
    "msst_keras.outputs",
    "msst_keras.ordered_sums",
}
ALLOWED = {
    "msst_keras.files": set(),
    "msst_keras.progress": set(),
    "msst_keras.processes": set(),
    "msst_keras.options": set(),
    "msst_keras.quiet_start": set(),
    "msst_keras.locks": set(),
    "msst_keras.outputs": {"msst_keras.__version__"},
    "msst_keras.ordered_sums": set(),
    "msst_keras.data": set(),
    "msst_keras.model": set(),
    "msst_keras.synthetic": {"msst_keras.data"},
    "msst_keras.records": {"msst_keras.data", "msst_keras.motion.settings"},
    # A prior's file is unpacked with the care that other weights are.
    "msst_keras.motion": {"msst_keras.model.backbones", "msst_keras.model.weights", "msst_keras.data.flow_files"},
    "msst_keras.pipeline": {"msst_keras.data", "msst_keras.records", "msst_keras.motion.settings"},
    # A still in motion gives its own flow, which a conversion asks it for.
    "msst_keras.conversion": {"msst_keras.data", "msst_keras.records", "msst_keras.motion", "msst_keras.synthetic"},
    "msst_keras.evaluation": set(),
    "msst_keras.evaluation.map_reader": {"msst_keras.data", "msst_keras.motion"},
    "msst_keras.evaluation.options": {"msst_keras.data.layouts"},
    "msst_keras.web": set(),
    "msst_keras.app": {"msst_keras.data", "msst_keras.web"},
    "msst_keras.live": {"msst_keras.data", "msst_keras.inference.overlay", "msst_keras.web"},
    # Flow and a model's maps are two of the methods to fuse.
    "msst_keras.labels": {
        "msst_keras.data",
        "msst_keras.motion.flow",
        "msst_keras.motion.flow_pictures",
        "msst_keras.inference",
        "msst_keras.web",
    },
    "msst_keras.inference": {"msst_keras.motion"},
    "msst_keras.serving": {
        "msst_keras.model",
        "msst_keras.motion.settings",
        "msst_keras.motion.superpixels",
        "msst_keras.data",
    },
    # The client makes the motion of the frames that it sends.
    "msst_keras.serving.client": {
        "msst_keras.inference.motion_stream",
        "msst_keras.inference.saliency_stream",
        "msst_keras.inference.temporal_filter",
        "msst_keras.motion",
    },
    "msst_keras.training": {
        "msst_keras.pipeline",
        "msst_keras.model",
        "msst_keras.evaluation",
        "msst_keras.motion.settings",
    },
    "msst_keras.jobs": {
        "msst_keras.__version__",
        "msst_keras.data",
        "msst_keras.model",
        "msst_keras.synthetic",
        "msst_keras.records",
        "msst_keras.motion",
        "msst_keras.pipeline",
        "msst_keras.conversion",
        "msst_keras.evaluation",
        "msst_keras.inference",
        "msst_keras.serving",
        "msst_keras.training",
        "msst_keras.labels",
        "msst_keras.app",
        "msst_keras.live",
        "msst_keras.web",
    },
    "msst_keras.flagfiles": set(),
    "msst_keras.cli": {"msst_keras.__version__", "msst_keras.tools", "msst_keras.flagfiles"},
    "msst_keras.__main__": {"msst_keras.cli"},
    "msst_keras": set(),
}


KERAS_ALONE = {"msst_keras.motion.prior", "msst_keras.motion.prior_files", "msst_keras.motion.regions"}


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


def imports_of_the_package():
    """Module -> the modules of the package that it imports."""
    graph = {}
    for path in package_files():
        found = graph.setdefault(module_of(path), set())
        for target, name in imported_modules(path):
            if within(target, "msst_keras"):
                is_room = (PACKAGE.parent / target.replace(".", "/")).is_dir()
                found.add(f"{target}.{name}" if is_room and name else target)
    assert sum(map(len, graph.values())) > 100  # the walk found the package
    return graph


def test_rooms_import_only_what_they_may():
    for module, targets in imports_of_the_package().items():
        room = ".".join(module.split(".")[:2])
        allowed = ALLOWED[room] | ALLOWED.get(module, set()) | FOR_ALL | ({room} if room != "msst_keras" else set())
        for target in targets:
            assert any(within(target, other) for other in allowed), f"{module} must not import {target}"


def test_tools_import_jobs_and_options_alone():
    ground = {
        "msst_keras.cli",
        "msst_keras.flagfiles",
        "msst_keras.options",
        "msst_keras.processes",
        "msst_keras.tools._flags",
    }
    paths = [path for folder in tools.__path__ for path in Path(folder).glob("*.py")]
    assert len(paths) > 10
    for path in paths:
        for target, name in imported_modules(path):
            target = f"{target}.{name}" if target == "msst_keras" else target
            is_options = target.startswith("msst_keras.") and target.endswith(".options")
            allowed = target in ground or is_options or within(target, "msst_keras.jobs")
            assert allowed or not within(target, "msst_keras"), f"{path} must not import {target}"


def test_functions_of_tools_are_short():
    for folder in tools.__path__:
        for path in Path(folder).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef):
                    length = node.end_lineno - node.lineno + 1
                    assert length <= 30, f"{path}: {node.name} has {length} lines; jobs hold what is done"


def test_no_room_is_a_fifth_of_the_house_and_files_are_short():
    lengths = {path: len(path.read_text().splitlines()) for path in package_files()}
    assert statistics.median(lengths.values()) <= 130
    rooms = collections.Counter()
    for path, length in lengths.items():
        rooms[path.relative_to(PACKAGE).parts[0]] += length
    assert len(rooms) > 15
    room, length = rooms.most_common(1)[0]
    assert length <= 0.2 * sum(lengths.values()), f"{room} is the largest room, of {length} lines; split it"


def test_options_need_neither_tensorflow_nor_keras():
    modules = [module_of(path) for path in package_files() if path.name == "options.py"]
    assert len(modules) > 8
    program = (
        f"import importlib, sys; [importlib.import_module(name) for name in {modules}]; "
        "print(sorted({'tensorflow', 'keras', 'absl'} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_no_module_imports_itself_in_the_end():
    graph = imports_of_the_package()
    list(graphlib.TopologicalSorter(graph).static_order())  # a circle raises, and is named
    rooms = {room: {".".join(target.split(".")[:2]) for target in allowed} for room, allowed in ALLOWED.items()}
    list(graphlib.TopologicalSorter(rooms).static_order())


def test_the_model_needs_keras_alone():
    for path in package_files():
        if within(module_of(path), "msst_keras.model") or module_of(path) in KERAS_ALONE:
            found = {target.split(".")[0] for target, _ in imported_modules(path)}
            assert "tensorflow" not in found, path


def test_flags_live_in_tools_alone():
    for path in package_files():
        if path.name != "cli.py":
            assert not [target for target, _ in imported_modules(path) if within(target, "absl.flags")], path
            assert ("absl", "flags") not in set(imported_modules(path)), path
