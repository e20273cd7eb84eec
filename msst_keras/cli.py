"""The command `msst`: `msst JOB [--flags]` runs tools/JOB.py. Each of those programs runs itself through `run`, too.

Exit status: 0 when all went well and for help; 1 with one sentence on standard error when an input is at fault; 2 for
wrong flags; 75 when a signal interrupted a run that saved itself; 128 and its number when a signal ended any other job,
which then has removed its temporary files. (absl's own runner exits 1 for help and wrong flags.)
"""

from __future__ import annotations

import ast
import errno
import importlib
import io
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, cast

from absl import flags

from msst_keras import __version__
from msst_keras.flagfiles import expand_flagfiles
from msst_keras.quiet_start import quiet_tensorflow

INTERRUPTED = 75
_MISSING = re.compile(r"Flag --(\w+) must have a value other than None")
_OBVIOUS = ("", "an integer", "a number", "a comma separated list")  # absl's words for what any value is
_headings: dict[str, str] = {}  # flag's name -> its heading in help
_DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error instead of its one sentence.")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs `msst JOB [--flags]`; lists the jobs when there is none. Does not return: the process exits."""
    argv = list(sys.argv if argv is None else argv)
    jobs = find_jobs()
    if argv[1:] == ["--version"]:
        _show(__version__)
        sys.exit(0)
    if argv[1:2] == ["help"] and argv[2:]:
        argv = [argv[0], argv[2], "--helpshort"]
    if len(argv) < 2 or argv[1] in ("help", "-h", "--help", "--helpshort"):
        width = max(map(len, jobs))
        usage = "usage: msst JOB [--flags]; msst JOB --helpshort lists a job's flags; msst --version is the package's\n"
        lines = [usage, *(f"  {name:<{width}}  {summary}" for name, summary in jobs.items())]
        _show("\n".join(lines))
        sys.exit(0)
    if argv[1] not in jobs:
        print(f"msst: there is no job '{argv[1]}'; the jobs are {', '.join(jobs)}", file=sys.stderr)
        sys.exit(2)
    job = importlib.import_module(f"msst_keras.tools.{argv[1]}")
    run(job.main, [f"msst {argv[1]}", *argv[2:]])


def find_jobs() -> dict[str, str]:
    """The name of each job and the first line of its program's docstring, without importing the programs."""
    tools = importlib.import_module("msst_keras.tools")
    paths = sorted(path for folder in tools.__path__ for path in Path(folder).glob("[a-z]*.py"))
    docs = {path.stem: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "" for path in paths}
    return {name: doc.partition("\n")[0] for name, doc in docs.items()}


def run(job_main: Callable[[], int | None], argv: Sequence[str] | None = None) -> None:
    """Parses the flags, calls `job_main()` and exits with its status (0 for None). Does not return.

    `ValueError`, `OSError` (a missing file, a full disk), `MemoryError` and TensorFlow's errors mean that an input is
    at fault. Their message is printed, without a traceback unless --debug is given, and the status is 1. SIGTERM and
    SIGHUP end the job as Ctrl-C does: what it has under way is cleaned up.
    """
    argv = list(sys.argv if argv is None else argv)
    program = argv[0] if argv[0].startswith("msst ") else Path(argv[0]).name
    if any(argument.lstrip("-") in ("help", "helpshort", "helpfull", "h") for argument in argv[1:]):
        _show(_help(job_main))
        sys.exit(0)
    try:
        rest = flags.FLAGS([argv[0], *expand_flagfiles(argv[1:])])[1:]
    except (flags.Error, ValueError, OSError) as error:
        _fail(program, _describe_flag_error(error, argv[1:]), 2)
    if rest:
        _fail(program, f"unexpected argument '{rest[0]}'; every input is a flag (--name=value)", 2)
    logging.getLogger("absl").setLevel(logging.ERROR)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no notes of TensorFlow while it works, after its start
    quiet_tensorflow()
    _end_by_signals()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal without a name's letters is no error; stderr knows that
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        sys.exit(job_main() or 0)
    except Exception as error:
        sentence = describe_error(error)
        if sentence is None or _DEBUG.value:
            raise
        _fail(program, sentence, 1)
    except KeyboardInterrupt:
        _fail(program, "interrupted", 130)
    except _Ended as ended:
        _fail(program, f"ended by {signal.Signals(ended.code - 128).name}", ended.code)


def _describe_flag_error(error: Exception, arguments: Sequence[str]) -> str:
    """The sentence of a wrong flag; of all flags that are missing, one for all."""
    missing = _MISSING.findall(str(error))
    if not missing:
        return describe_error(error) or str(error)
    if wrong := [line for line in str(error).splitlines() if not _MISSING.search(line)]:  # which is said first
        return "\n".join(wrong)
    names = [f"--{name}" for name in dict.fromkeys(missing)]
    sentence = f"{' and '.join([', '.join(names[:-1]), names[-1]] if names[1:] else names)} must be given"
    # What follows a flag without = may be its value.
    pairs = zip(["=", *arguments], arguments, strict=False)
    stray = [new for old, new in pairs if not new.startswith("-") and ("=" in old or not old.startswith("-"))]
    return sentence + (f"; '{stray[-1]}' stands alone, and every input is a flag (--name=value)" if stray else "")


class _Ended(SystemExit):
    """A signal that ends programs has come; raised in the main thread, so that every `with` block cleans up."""

    code: int


def _end_by_signals() -> None:
    """Makes SIGTERM (of schedulers, `timeout`, `docker stop`) and SIGHUP raise; a second one kills."""

    def end(number: int, _: FrameType | None) -> NoReturn:
        """Raises `_Ended` with the exit status of the signal."""
        signal.signal(number, signal.SIG_DFL)
        raise _Ended(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # `nohup` ignores SIGHUP
            signal.signal(number, end)


def describe_error(error: Exception) -> str | None:
    """The sentence of an input at fault; None for an error of the program."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename:
        return f"{error.filename}: the disk is full; make room and run the same command again"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
    if isinstance(error, ValueError | OSError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"not enough memory ({error or 'none could be had'}); smaller inputs or fewer at a time need less"
    if any(kind.__module__.startswith("tensorflow") and kind.__name__ == "OpError" for kind in type(error).__mro__):
        # A full disk, memory, a file: TensorFlow's errors are no OSErrors.
        return cast(Any, error).message.splitlines()[0]
    return None


def set_heading(heading: str, names: Sequence[str]) -> None:
    """Puts the flags of these names under a heading in a job's help."""
    _headings.update(dict.fromkeys(names, heading))


def _flags_of(job_main: Callable[[], int | None]) -> list[flags.Flag]:
    """The flags that a job defines, in the order of definition."""
    registered = flags.FLAGS.flags_by_module_dict()
    name = job_main.__module__ if job_main.__module__ in registered else sys.argv[0]  # sys.argv[0]: run as a program
    return registered.get(name, [])


def _help(job_main: Callable[[], int | None]) -> str:
    lines, heading = [(sys.modules[job_main.__module__].__doc__ or "").strip(), "\nFlags:"], None
    for flag in _flags_of(job_main):
        if (new := _headings.get(flag.name)) != heading:
            lines.append(f"\n  {new}:")
            heading = new
        lines += [f"  --{flag.name}: {(flag.help or '').strip()}", f"      {_describe_value(flag)}"]
    return "\n".join(lines)


def _describe_value(flag: flags.Flag) -> str:
    """What a flag's value must be, as far as its type and range say it, and what it is without the flag."""
    kind = getattr(flag.parser, "syntactic_help", "")
    what = "" if kind in _OBVIOUS else f"; {kind}"
    if any(_MISSING.search(validator.message) for validator in flag.validators):
        return f"required{what}"
    return f"default: {flag.default_as_str or 'not set'}{what}"


def _show(text: str) -> None:
    """Prints a help. It is no error when its reader, `head` for example, has seen enough before its end."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends


def _fail(program: str, error: Exception | str, status: int) -> NoReturn:
    message = " ".join(str(error).split())
    print(f"{program}: {message}" + (" (--helpshort lists the flags)" if status == 2 else ""), file=sys.stderr)
    sys.exit(status)
