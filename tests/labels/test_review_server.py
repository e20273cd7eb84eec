"""The review's server: its requests, one browser at a time, and what it refuses."""

from __future__ import annotations

import resource
import subprocess
import sys

import numpy as np
import pytest

from msst_keras.data import images
from msst_keras.labels.label_files import read_label, write_label

pytest.importorskip("uvicorn")

from served import Served  # noqa: E402

from msst_keras.labels.review_server import SEAT_SECONDS, Seat  # noqa: E402
from msst_keras.web.server import Refused  # noqa: E402

SIZE = (20, 31)


def make_tree(root):
    """Two frames with a label of two squares each."""
    label = np.zeros(SIZE, bool)
    label[5:15, 4:10] = label[5:15, 20:26] = True
    for index in range(2):
        path = root / "frames" / "boat" / f"{index:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(images.encode_jpeg(np.full((*SIZE, 3), 90, np.uint8)))
        write_label(root / "labels" / "boat" / f"{index:05d}.png", label)
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("review"))


@pytest.fixture(scope="module")
def server(tree):
    with Served("review_labels", f"--frames={tree}/frames", f"--labels={tree}/labels") as server:
        yield server


def take_seat(server):
    status, answer = server.ask("POST", "/api/seat?force", b"")
    assert status == 200
    return answer["seat"]


def test_frames_labels_and_decisions_go_to_the_disk(server, tree):
    seat = take_seat(server)
    assert server.ask("GET", "/api/review")[1]["frames"] == [["boat", "00000", "reopen"], ["boat", "00001", "reopen"]]
    status, image = server.ask("GET", "/api/frames/1/image")
    assert status == 200 and image == (tree / "frames/boat/00001.jpg").read_bytes()
    status, content = server.ask("GET", "/api/frames/1/label")
    path = tree / "labels/boat/00001.png"
    bits = np.packbits(read_label(path)).tobytes()
    assert (status, content, server.headers["x-size"]) == (200, bits + bits, "20x31")
    changed = read_label(path)
    changed[:, 20:26] = False
    version = server.headers["x-version"]
    body = np.packbits(changed).tobytes()
    status, answer = server.ask("PUT", "/api/frames/1/label", body, X_Seat=seat, X_Version=version)
    assert status == 200 and np.array_equal(read_label(path), changed)
    assert server.ask("GET", "/api/frames/1/label")[1] == body + bits
    status, answer = server.ask("PUT", "/api/frames/1/label", bits, X_Seat=seat, X_Version=version)
    assert (status, answer["kind"]) == (409, "changed") and np.array_equal(read_label(path), changed)
    assert server.ask("PUT", "/api/frames/0/decision", b"reject", X_Seat=seat)[0] == 204
    assert not (tree / "labels/boat/00000.png").exists()
    assert server.ask("PUT", "/api/frames/0/decision", b"reopen", X_Seat=seat)[0] == 204
    assert (tree / "labels/boat/00000.png").exists()


def test_another_page_cannot_post(server, tree):
    seat = take_seat(server)
    before = (tree / "labels/boat/00001.png").read_bytes()
    body = bytes((SIZE[0] * SIZE[1] + 7) // 8)
    for origin in ("http://evil.example", "null", None):
        status, answer = server.ask("PUT", "/api/frames/1/label", body, X_Seat=seat, Origin=origin)
        assert status == 403 and "may not change anything here" in answer["error"]
    status, answer = server.ask("PUT", "/api/frames/1/label", body, X_Seat=seat, Host="evil.example")
    assert status == 403 and "does not answer to the name" in answer["error"]
    assert (tree / "labels/boat/00001.png").read_bytes() == before


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/api/frames/../../x/image", "/api/frames/-1/image",
             "/page/script.js", "//etc/passwd", "/api/frames/%00/label"]
)  # fmt: skip
def test_paths_outside_are_refused(server, path):
    status, answer = server.ask("GET", path)
    assert status == 404 and answer["error"] == "there is nothing at this address"


@pytest.mark.parametrize(
    "method, path, body, status, sentence",
    [
        ("GET", "/api/frames/2/label", None, 400, "there is no frame 2; there are 2"),
        ("PUT", "/api/frames/1/label", b"text", 400, "expected a label of 20x31 pixels in 78 bytes, got 4 bytes"),
        ("PUT", "/api/frames/1/label", b"x" * 79, 413, "expected at most 78 bytes, got more"),
        ("PUT", "/api/frames/1/decision", b"maybe", 400, "a decision is one of accept, reject, reopen, not 'maybe'"),
        ("PUT", "/api/frames/1/decision", b"x" * 100, 413, "expected at most 20 bytes, got more"),
        ("PUT", "/api/frames/1/image", b"", 405, "Method Not Allowed"),
    ],
)
def test_wrong_requests_are_one_sentence(server, method, path, body, status, sentence):
    seat = take_seat(server)
    assert server.ask(method, path, body, X_Seat=seat)[0] == status
    assert server.ask(method, path, body, X_Seat=seat)[1]["error"] == sentence


def test_a_full_disk_is_no_fault_of_the_request(server, tree):
    seat, process = take_seat(server), server.process.pid
    path = tree / "labels/boat/00001.png"
    before = path.read_bytes()
    label = np.zeros(SIZE, bool)
    body = np.packbits(label).tobytes()
    old = resource.prlimit(process, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    status, answer = server.ask("PUT", "/api/frames/1/label", body, X_Seat=seat)
    assert (status, answer) == (507, {"error": "File too large", "kind": "room"}) and path.read_bytes() == before
    resource.prlimit(process, resource.RLIMIT_FSIZE, old)
    assert server.ask("PUT", "/api/frames/1/label", body, X_Seat=seat)[0] == 200  # the same again
    assert np.array_equal(read_label(path), label)


def test_without_the_seat_nothing_is_changed(server):
    first = take_seat(server)
    status, answer = server.ask("POST", "/api/seat", b"")
    assert (status, answer) == (409, {"error": "another browser is reviewing these labels", "kind": "seat"})
    take_seat(server)
    status, answer = server.ask("PUT", "/api/frames/1/decision", b"accept", X_Seat=first)
    assert (status, answer["error"]) == (409, "the review went on in another browser")
    assert server.ask("GET", "/api/review")[1]["frames"][1][2] == "reopen"


def test_another_process_is_told(server, tree):
    command = [
        sys.executable,
        "-m",
        "msst_keras",
        "review_labels",
        f"--frames={tree}/frames",
        f"--labels={tree}/labels",
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    sentence = (
        f"msst review_labels: {tree}/labels: another process is reviewing these labels; use its page or end it first"
    )
    assert result.stderr.strip() == sentence
    command[-1] = f"--labels={make_tree(tree / 'other')}/labels"
    result = subprocess.run(
        [*command, f"--port={server.port}"], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 1 and f"cannot listen on 127.0.0.1, port {server.port}" in result.stderr


def test_without_the_extra_it_says_what_to_install(tmp_path):
    program = "import sys; sys.modules['uvicorn'] = None; from msst_keras import cli; cli.main(['msst', *sys.argv[1:]])"
    for job, flags in (("review_labels", ["--frames=x", "--labels=y"]), ("app", [f"--model={tmp_path}"])):
        command = [sys.executable, "-c", program, job, *flags]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 1
        assert result.stderr == f"msst {job}: the page needs 'uvicorn': pip install 'msst-keras[labels]'\n"


def test_beyond_this_machine_there_is_a_token(tmp_path):
    make_tree(tmp_path)
    with Served(
        "review_labels", f"--frames={tmp_path}/frames", f"--labels={tmp_path}/labels", "--host=0.0.0.0"
    ) as server:
        assert len(server.token) > 30
        assert server.ask("GET", "/api/review")[0] == 403
        assert server.ask("GET", f"/?token={server.token}")[0] == 303
        cookie = server.headers["set-cookie"].partition(";")[0]
        assert server.ask("GET", "/api/review", Cookie=cookie, Host="any.name")[0] == 200


def test_a_seat_is_free_again_when_its_browser_leaves_or_falls_silent():
    now = [0.0]
    seat = Seat(lambda: now[0])
    first = seat.take("", by_force=False)
    now[0] = SEAT_SECONDS - 1
    seat.check(first)
    now[0] = 2 * SEAT_SECONDS - 2
    with pytest.raises(Refused, match="another browser"):
        seat.take("", by_force=False)
    again = seat.take(first, by_force=False)  # the same browser, its page loaded again
    with pytest.raises(Refused, match="went on in another browser"):
        seat.check(first)
    now[0] += SEAT_SECONDS + 1
    other = seat.take("", by_force=False)
    seat.leave(again)  # too late to matter
    seat.check(other)
    seat.leave(other)
    with pytest.raises(Refused, match="went on in another browser"):
        seat.check("")
    seat.take("", by_force=False)
