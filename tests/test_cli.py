"""The command itself: exit statuses, the list of jobs, help, and one sentence per error.

Every job is a process of its own, as a user runs it (two jobs may have flags of one name, so they cannot share one).
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import msst_keras
from msst_keras import cli
from msst_keras.__main__ import main
from msst_keras.flagfiles import expand_flagfiles

JOBS = (
    "ablate", "app", "demo", "evaluate", "export", "fuse_labels", "inspect_records", "make_records", "predict", "query",
    "refine", "review_labels", "serve_data", "train", "train_prior",
)  # fmt: skip


def msst(*arguments, program=("-m", "msst_keras")):
    return subprocess.run(
        [sys.executable, *program, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def test_alone_it_lists_the_jobs_one_line_each():
    result = msst()
    assert result.returncode == 0
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line.startswith("  ")}
    assert tuple(lines) == JOBS
    assert all(line.rstrip().endswith(".") for line in lines.values())


@pytest.mark.parametrize("job", JOBS)
def test_every_job_explains_its_flags(job):
    result = msst(job, "--helpshort")
    assert result.returncode == 0
    assert f"msst {job} --" in result.stdout and "default:" in result.stdout


@pytest.mark.parametrize("arguments", [(), ("train", "--helpshort")])
def test_help_ends_quietly_when_its_reader_has_seen_enough(arguments):
    command = [sys.executable, "-u", "-m", "msst_keras", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()  # before the first line comes
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_the_version_and_the_help_of_a_job_are_what_one_tries_first():
    result = msst("--version")
    assert (result.returncode, result.stdout) == (0, f"{msst_keras.__version__}\n")
    assert msst("help", "refine").stdout == msst("refine", "--helpshort").stdout != ""
    exported = msst("help", "export").stdout
    assert "default: not set; HEIGHTxWIDTH\n" in exported and "--run_dir" in exported and "      required\n" in exported
    assert "--maps" in msst("help", "refine").stdout and msst("help", "nothing").returncode == 2


def test_wrong_flags_exit_with_2():
    for arguments, message in (
        (["nothing"], "there is no job 'nothing'; the jobs are ablate, app, demo, evaluate"),
        (["train"], "--records and --run_dir must be given (--helpshort"),
        (["evaluate", "--protocol=paper"], "--predictions, --ground_truth and --output_dir must be given (--helpshort"),
        (["predict", "a.mp4"], "--input must be given; 'a.mp4' stands alone, and every input is a flag (--name=value)"),
        (["predict", "--output_dir", "a.mp4"], "--input must be given (--helpshort"),
        (["evaluate", "--protocol=mine"], "must be among paper, davsod, davis16, pysodmetrics, or all"),
        (["train", "--batch_size=0"], "--batch_size=0"),
        (["make_records", "--motion_size=240"], "must be HEIGHTxWIDTH in pixels, such as 240x432, not '240'"),
        (["demo", "data"], "unexpected argument 'data'"),
    ):
        result = msst(*arguments)
        assert (result.returncode, result.stdout) == (2, ""), arguments
        assert message in " ".join(result.stderr.split()) and "Traceback" not in result.stderr


def test_an_input_at_fault_is_one_sentence_and_1(tmp_path):
    result = msst("make_records", "--dataset=davis", f"--root={tmp_path}/none", f"--output_dir={tmp_path}/out")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == f"msst make_records: {tmp_path}/none: no such folder"
    assert "Traceback" not in result.stderr and not (tmp_path / "out").exists()
    result = msst(
        "make_records", "--dataset=davis", f"--root={tmp_path}/none", f"--output_dir={tmp_path}/out", "--debug"
    )
    assert result.returncode == 1 and "Traceback" in result.stderr


def test_ctrl_c_while_the_program_is_being_loaded_is_a_sentence(monkeypatch, capsys):
    def interrupt(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "main", interrupt)
    with pytest.raises(SystemExit) as ended:
        main(["msst", "train"])
    assert (ended.value.code, *capsys.readouterr()) == (130, "", "msst: interrupted\n")


def test_a_program_is_the_job():
    path = Path(cli.__file__).parent.parent / "tools" / "evaluate.py"
    if not path.exists():
        pytest.skip("the package is installed without its clone")
    helped, failed = msst("--help", program=(str(path),)), msst("--flag", program=(str(path),))
    assert helped.returncode == 0 and "--predictions" in helped.stdout
    assert failed.returncode == 2 and failed.stderr.startswith("evaluate.py: ")


def test_flags_are_written_as_a_flagfile(tmp_path):
    program = (
        "import sys; from msst_keras.options import write_flags; from msst_keras.tools import train; "
        "from absl import flags; flags.FLAGS(sys.argv); print(write_flags(train._read_options()), end='')"
    )
    arguments = ["--records=a,b", "--run_dir=run", "--image_sizes=33x44,55x66", "--noflip"]
    first = msst(*arguments, program=("-c", program))
    assert first.returncode == 0, first.stderr
    (tmp_path / "flags.txt").write_text(first.stdout)
    second = msst(f"--flagfile={tmp_path}/flags.txt", program=("-c", program))
    assert second.stdout == first.stdout
    assert {"--records=a,b", "--noflip", "--image_sizes=33x44,55x66", "--seed=0"} <= set(first.stdout.splitlines())


_SHOW_FLAGS = """
import sys
from absl import flags
from msst_keras import cli
from msst_keras.__main__ import main
from msst_keras.flagfiles import expand_flagfiles
from msst_keras.tools import predict
cli.run(lambda: print(flags.FLAGS.input, flags.FLAGS.output_dir), ["predict", *sys.argv[1:]])
"""


def _read_flags(*arguments, cwd=None, **environment):
    command = [sys.executable, "-c", _SHOW_FLAGS, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, cwd=cwd)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_flagfiles_of_windows_are_read(tmp_path, encoding):
    path, other = tmp_path / "flags.txt", tmp_path / "other flags.txt"
    path.write_bytes(f"--input=Zürich.mp4\r\n# a remark\r\n\r\n--flagfile={other}\r\n".encode(encoding))
    other.write_bytes("--output_dir=out\u3000\r\n".encode(encoding))
    assert _read_flags("--output_dir=no", f"--flagfile={path}").stdout == "['Zürich.mp4'] out\u3000\n"
    flags = ["--input=Zürich.mp4", "--output_dir=out\u3000"]
    for arguments in ([f"--flagfile={path}"], ["--flagfile", str(path)], ["-flagfile", str(path)]):
        assert expand_flagfiles(["--a", *arguments, "b"]) == ["--a", *flags, "b"]
    assert expand_flagfiles(["--", f"--flagfile={path}"]) == ["--", f"--flagfile={path}"]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"--input=\xff\xe9.mp4\n", "flags.txt: expected a text in UTF-8, or one with a byte order mark"),
        (b"--flagfile=flags.txt\n", "flags.txt: this flagfile names itself"),
        (b"--flagfile=\n", "--flagfile wants the name of a file"),
        (b"--flagfile=~nobody-/gone.txt\n", "~nobody-/gone.txt: no such file"),
        (b"--input=a.mp4\nhello\n", "unexpected argument 'hello'"),
    ],
)
def test_a_bad_flagfile_is_one_sentence(tmp_path, content, message):
    (tmp_path / "flags.txt").write_bytes(content)
    result = _read_flags("--flagfile=flags.txt", cwd=tmp_path)
    assert result.returncode == 2 and message in result.stderr and result.stderr.count("\n") == 1


def test_paths_in_flags_are_those_that_are_meant(tmp_path):
    (tmp_path / "Paris, day 2.mp4").touch()
    paths = f"--input={tmp_path}/Paris, day 2.mp4", "--output_dir=~/maps"
    assert _read_flags(*paths, HOME=str(tmp_path)).stdout == f"['{tmp_path}/Paris, day 2.mp4'] {tmp_path}/maps\n"
    texts = _read_flags("--input=~/Paris, day 2.mp4", "--output_dir=a~b", HOME=str(tmp_path))
    assert texts.stdout == f"['{tmp_path}/Paris, day 2.mp4'] a~b\n"
    assert _read_flags('--input=~/a.mp4,b.mp4,"c,d"', HOME="/h").stdout == "['/h/a.mp4', 'b.mp4', 'c,d'] maps\n"


_PARSE_TEXTS = """
import sys
from msst_keras.options import PAIR, SHARE
from msst_keras.tools._flags import _TextsParser
syntax = {"PAIR": PAIR, "SHARE": SHARE}[sys.argv[1]]
print([_TextsParser(syntax).parse(text) for text in sys.argv[2:]])
"""


def test_paths_that_have_a_name_or_a_share_are_those_that_are_meant(tmp_path):
    def parse(syntax, *texts):
        command = [sys.executable, "-c", _PARSE_TEXTS, syntax, *texts]
        environment = os.environ | {"HOME": str(tmp_path)}
        result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path)
        return ast.literal_eval(result.stdout)

    for name in ("a, b", "12:30, late"):
        (tmp_path / name).mkdir()
    home = str(tmp_path)
    assert parse("PAIR", "x:~/a, b", "x:~/a,y:b", '"x:a, b",y:~', "x:12:30, late", "x,y:a, b") == [
        [f"x:{home}/a, b"], [f"x:{home}/a", "y:b"], ["x:a, b", f"y:{home}"], ["x:12:30, late"], ["x", "y:a", "b"]
    ]  # fmt: skip
    assert parse("SHARE", "~/a, b:3", "~/a, b", "12:30, late:2", "~/a:2,~/b:1", "~/a:b") == [
        [f"{home}/a, b:3"], [f"{home}/a, b"], ["12:30, late:2"], [f"{home}/a:2", f"{home}/b:1"], [f"{home}/a:b"]
    ]  # fmt: skip


def test_a_name_that_the_terminal_has_no_letters_for_is_escaped():
    result = _read_flags("--input=\u904b\u52d5.mp4", PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stdout) == (0, r"['\u904b\u52d5.mp4'] maps" + "\n"), result.stderr
