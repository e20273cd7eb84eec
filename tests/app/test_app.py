"""The app's server: a video goes in, maps and an overlay come out; one at a time, bounded, and cancelled for real."""

from __future__ import annotations

import io
import subprocess
import sys
import time
import types
import zipfile
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np
import pytest

pytest.importorskip("uvicorn")

from served import Served  # noqa: E402

from msst_keras.app import job as app_job  # noqa: E402
from msst_keras.app.job import Job, Limits, frame_size  # noqa: E402
from msst_keras.data import images  # noqa: E402

TIMEOUT = 120


@pytest.fixture(scope="module")
def server(saved_model):
    with Served("app", f"--model={saved_model}", "--max_megabytes=3", "--max_frames=1000") as server:
        yield server


def send(server, path, name=None):
    return server.ask("POST", f"/api/video?name={quote(name or path.name)}", path.read_bytes())


def wait(server, *states):
    """What the server says of its job once that is in one of the states."""
    deadline = time.monotonic() + TIMEOUT
    while (job := server.ask("GET", "/api/job")[1])["state"] not in states:
        assert time.monotonic() < deadline, job
        time.sleep(0.05)
    return job


def children(pid):
    """The processes that a process started, and theirs."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    direct = [int(line) for line in found.stdout.split()]
    return direct + [each for child in direct for each in children(child)]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_video_goes_in_and_maps_and_overlay_come_out(server, saved_model, video, tmp_path):
    assert server.ask("GET", "/overlay.mp4")[0] == 404
    status, answer = send(server, video, "../../strange <b>näme.avi")
    assert status == 200
    job = wait(server, "done", "failed")
    assert (job["state"], job["title"], job["num_done"], job["num_frames"]) == ("done", "strange <b>näme.avi", 12, 12)
    assert (job["frame_rate"], job["size"]) == (12.5, [40, 60])
    command = ["predict", f"--model={saved_model}", f"--input={video}", f"--output_dir={tmp_path}"]
    subprocess.run([sys.executable, "-m", "msst_keras", *command], check=True, capture_output=True, timeout=TIMEOUT)
    expected = {path.name: path.read_bytes() for path in (tmp_path / "clip").glob("[!.]*")}
    status, content = server.ask("GET", "/maps.zip")
    archive = zipfile.ZipFile(io.BytesIO(content))
    assert {name.removeprefix("strange _b_näme/"): archive.read(name) for name in archive.namelist()} == expected
    assert "filename*=UTF-8''strange%20%3Cb%3En%C3%A4me_maps.zip" in server.headers["content-disposition"]
    assert server.ask("GET", f"/api/maps/{answer['number']}/3")[1] == expected["00003.png"]
    status, frame = server.ask("GET", f"/api/frames/{answer['number']}/3")
    assert cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_COLOR).shape == (40, 60, 3)
    status, overlay = server.ask("GET", "/overlay.mp4")
    (tmp_path / "overlay.mp4").write_bytes(overlay)
    capture = cv2.VideoCapture(str(tmp_path / "overlay.mp4"))
    assert (capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)) == (12, 12.5)
    assert server.ask("GET", f"/api/maps/{answer['number']}/12")[1]["error"] == "this frame is not there yet"
    assert server.ask("GET", f"/api/maps/{answer['number'] + 1}/0")[0] == 404


def test_what_is_no_video_is_one_sentence(server, tmp_path, video):
    for name, content, sentence in (
        ("notes.mp4", b"just some text", "notes.mp4: not a readable video; expected a file that FFmpeg decodes"),
        ("cut.avi", video.read_bytes()[:300], "cut.avi: cut off or damaged: has 300 bytes"),
    ):
        (tmp_path / name).write_bytes(content)
        assert send(server, tmp_path / name)[0] == 200
        job = wait(server, "failed", "done")
        assert job["error"].startswith(sentence) and "/" not in job["error"]
    for name, content, status, sentence in (
        ("notes.txt", b"text", 400, "expected a video (.mp4, "),
        ("empty.mp4", b"", 400, "'empty.mp4' is empty"),
        ("large.mp4", bytes(3 * 2**20 + 1), 413, "a video may have 3 MB at most (--max_megabytes); this one is larger"),
    ):
        (tmp_path / name).write_bytes(content)
        found, answer = send(server, tmp_path / name)
        assert found == status and answer["error"].startswith(sentence), answer


def test_one_at_a_time_and_cancel_ends_the_work(server, long_video, video):
    assert send(server, long_video)[0] == 200
    job = wait(server, "working")
    status, answer = send(server, video)
    assert (status, answer["error"]) == (409, "another video is being worked on; wait for it or cancel it")
    deadline = time.monotonic() + TIMEOUT
    while not server.ask("GET", "/api/job")[1]["num_done"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    working = children(server.process.pid)
    assert working
    assert server.ask("POST", "/api/cancel", b"")[0] == 204
    assert wait(server, "cancelled")["number"] == job["number"]
    time.sleep(1)
    assert not any(map(is_alive, working))
    assert send(server, video)[0] == 200  # the next may come
    assert wait(server, "done", "failed")["state"] == "done"


def test_another_page_cannot_send_or_cancel(server, video):
    number = server.ask("GET", "/api/job")[1]["number"]
    for path in ("/api/video?name=clip.avi", "/api/cancel"):
        status, answer = server.ask("POST", path, b"x", Origin="http://evil.example")
        assert status == 403 and "may not change anything here" in answer["error"]
    assert server.ask("GET", "/api/job")[1]["number"] == number


def test_nothing_is_left_when_the_server_ends(saved_model, long_video, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with Served("app", f"--model={saved_model}") as server:
        assert send(server, long_video)[0] == 200
        wait(server, "working")
        assert list(tmp_path.glob("msst_app_*"))
    assert not list(tmp_path.glob("msst_app_*"))


def test_the_work_ends_with_a_killed_server(saved_model, long_video, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with Served("app", f"--model={saved_model}") as server:
        assert send(server, long_video)[0] == 200
        deadline = time.monotonic() + TIMEOUT
        while not (working := children(server.process.pid)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        server.process.kill()
        while any(map(is_alive, working)):
            assert time.monotonic() < deadline, working
            time.sleep(0.05)


def test_wide_frames_are_reduced_for_the_page_alone(saved_model, make_video, tmp_path):
    job = run_job(make_video(tmp_path / "wide.avi", 3, (100, 1920)), tmp_path / "job", Limits(), str(saved_model))
    assert (job.state, job.error) == ("done", "")
    assert frame_size(job) == (50, 960)
    assert images.read_map(job.map_path(2)).shape == (100, 1920)


def run_job(path, folder, limits, model="nowhere"):
    job = Job(folder, path.name, model, limits, refine=False)
    job.video_path.write_bytes(path.read_bytes())
    job.start()
    deadline = time.monotonic() + TIMEOUT
    while job.is_active:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return job


def test_the_maps_unpack_where_they_should(tmp_path):
    for title, folder in (("...mp4", "upload"), ("a/../b.mp4", "b"), ("c:\\d.mp4", "c__d"), ("e f.mp4", "e f")):
        job = Job(tmp_path / folder, title, "model", Limits(), refine=False)
        job.map_path(0).parent.mkdir(parents=True)
        job.map_path(0).write_bytes(b"png")
        assert zipfile.ZipFile(job.zip_maps()).namelist() == [f"{folder}/00000.png"]


@pytest.mark.parametrize(
    "limits, sentence",
    [
        (Limits(num_frames=11), "this video has 12 frames or more; the limit is 11 (--max_frames)"),
        (Limits(num_pixels=2399), "frames of 40x60 have more than 2399 pixels; reduce the video"),
        (Limits(), "nowhere: no such model folder"),
    ],
)
def test_limits_and_a_missing_model(video, tmp_path, limits, sentence):
    job = run_job(video, tmp_path / "job", limits)
    assert job.state == "failed" and job.error.startswith(sentence)
    time.sleep(0.1)
    assert not (tmp_path / "job").exists()


def test_without_a_model_it_does_not_start(tmp_path):
    command = [sys.executable, "-m", "msst_keras", "app", f"--model={tmp_path}/no"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    sentence = f"msst app: {tmp_path}/no: no such model folder; `msst export` writes saved_models/NAME/VERSION, name it"
    assert result.returncode == 1 and result.stderr.startswith(sentence)


def test_only_a_process_that_still_runs_is_killed(tmp_path, monkeypatch):
    """The number of one that ended and was waited for may be that of somebody else's by now."""
    killed, kill = [], app_job.os.killpg
    monkeypatch.setattr(app_job.os, "killpg", lambda *given: (killed.append(given[0]), kill(*given)))
    job = Job(tmp_path / "job", "a.mp4", "model", Limits(num_pixels=5), refine=False)
    job._process = subprocess.Popen(["true"], start_new_session=True)
    job._process.wait()
    job.state = "done"
    job.cancel()
    job.state = "working"
    too_large = types.SimpleNamespace(read_frames=lambda: [("00000", b"", np.zeros((2, 3, 3), np.uint8))])
    with pytest.raises(ValueError, match="frames of 2x3 have more than 5 pixels"):
        job._extract(too_large, job._process)
    assert killed == [] and job.state == "working"

    running = [subprocess.Popen(["sleep", "600"], start_new_session=True) for _ in range(2)]
    job._process = running[0]
    job.cancel()
    job.frame_path(0).parent.rmdir()
    job.state = "working"
    with pytest.raises(ValueError, match="frames of 2x3 have more than 5 pixels"):
        job._extract(too_large, running[1])
    assert [each.wait(60) for each in running] == [-9, -9] and killed == [each.pid for each in running]
