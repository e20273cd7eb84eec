"""Corrupted inputs through every reader: no crash, no hang, no memory blow-up, no silent success.

Each of more than 500 cases ends in one of these (`pytest -s` prints the table):

  refused       a ValueError or OSError whose sentence names the file
  unchanged     what was read is what the sound file holds: the change touched nothing that is read
  undetectable  read, of the right type and shape, with other values, from a format that carries no checksum: JPEG,
                BMP, PPM, TIFF, WebP, .flo, video, HDF5, protocol buffers and JSON (a changed digit in a manifest that
                contradicts nothing); or a sound file of the same kind in another's place. No reader can tell such a
                file from a right one. In PNG, TFRecord and ZIP (.keras, .npz) every value lies under a checksum, so
                there it would be a failure ("silent").
  unlisted      a frame of a plain folder or a mask of a DAVIS tree is gone, and nothing lists what should be there: a
                frame without a mask is one without a label; `msst make_records` prints how many of both it found
  bounded       a PNG of 16x16 pixels that unfolds to 300 MB: its pixels are read and the rest is not unfolded

The readers run in a process of its own, so that a crash or a hang is seen and belongs to a case.
"""

from __future__ import annotations

import collections
import json
import os
import selectors
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("fuzz_cases.py")
TIMEOUT = 60  # seconds that a case may take; none takes one on a machine of its own
ACCEPTED = {"refused", "unchanged", "undetectable", "unlisted", "bounded"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    subprocess.run([sys.executable, PROGRAM, "make", folder], check=True, capture_output=True, timeout=300)
    return folder


def run_cases(folder):
    """The result of every case; the process is started again after a crash or a hang."""
    count, results = len(json.loads((folder / "cases.json").read_text())), {}
    while len(results) < count:
        started = len(results)
        command = [sys.executable, PROGRAM, "run", folder, str(started)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            for line in _lines(process):
                started = line.get("started", started)
                if "number" in line:
                    results[line["number"]] = line
            if started not in results:
                hangs = process.poll() is None
                process.kill()
                results[started] = {"outcome": "hang" if hangs else "crash", "message": ""}
    return results


def _lines(process):
    """The lines that the process prints, until it ends or is silent for too long."""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        pending = b""
        while selector.select(TIMEOUT):
            content = os.read(process.stdout.fileno(), 1 << 16)
            if not content:
                process.wait()
                return
            *lines, pending = (pending + content).split(b"\n")
            yield from map(json.loads, lines)


def test_corrupted_inputs_through_every_reader(folder):
    cases = json.loads((folder / "cases.json").read_text())
    results = run_cases(folder)
    table = collections.defaultdict(collections.Counter)
    for number, result in results.items():
        table[cases[number]["reader"], cases[number]["format"]][result["outcome"]] += 1
    outcomes = sorted({outcome for counts in table.values() for outcome in counts})
    print(f"\n{'reader':<20} {'format':<9}" + "".join(f"{outcome:>13}" for outcome in outcomes))
    for (reader, form), counts in sorted(table.items()):
        print(f"{reader:<20} {form:<9}" + "".join(f"{counts[outcome]:>13}" for outcome in outcomes))
    assert len(cases) >= 500
    totals = sum(table.values(), collections.Counter())
    print(f"{'all':<30}" + "".join(f"{totals[outcome]:>13}" for outcome in outcomes))
    bad = [(cases[number], results[number]) for number in sorted(results) if results[number]["outcome"] not in ACCEPTED]
    assert not bad, "\n".join(f"{result['outcome']}: {case}: {result['message']}" for case, result in bad)
    assert totals["refused"] > 0.6 * totals.total()
    assert totals["unlisted"] == 2 and totals["bounded"] == 2


def test_a_crash_and_a_hang_are_seen(tmp_path, monkeypatch):
    cases = [{"reader": "none", "format": "x"}] * 3
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    program = tmp_path / "program.py"
    program.write_text(
        "import json, os, sys, time\n"
        "for number in range(int(sys.argv[3]), 3):\n"
        "    print(json.dumps({'started': number}), flush=True)\n"
        "    time.sleep(60) if number == 0 else os.abort() if number == 1 else None\n"
        "    print(json.dumps({'number': number, 'outcome': 'refused'}), flush=True)\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "PROGRAM", program)
    monkeypatch.setattr(sys.modules[__name__], "TIMEOUT", 2)
    results = run_cases(tmp_path)
    assert [results[number]["outcome"] for number in range(3)] == ["hang", "crash", "refused"]
