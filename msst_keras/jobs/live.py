"""Saliency of a camera or a network stream, live, with a page to look at; `msst predict --live`."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from msst_keras.inference import SHIPPED_MODEL
from msst_keras.inference.options import PredictOptions
from msst_keras.inference.stream import SaliencyModel, stream_maps
from msst_keras.web.extra import import_page

if TYPE_CHECKING:
    from msst_keras.live.view import LiveView

_REPORT_SECONDS = 10.0


def live(options: PredictOptions) -> dict[str, Any]:
    """Serves the page until the source ends or the program is stopped, and prints what went on.

    Returns:
      the last `LiveView.state`.

    Raises:
      FileNotFoundError: no such camera or pipe.
      ValueError: a source that does not answer, breaks off, or is none; or the extra `labels` is not installed.
    """
    with import_page():
        from msst_keras.live.server import LivePage
        from msst_keras.live.source import LiveSource
        from msst_keras.live.view import LiveView
        from msst_keras.web.server import serve
    model = SaliencyModel(options.model or SHIPPED_MODEL)
    source = LiveSource(options.input[0])
    view = LiveView(source.frames(), source.frame_rate, functools.partial(_make_maps, options, model))
    with _reports(view):
        view.start()
        try:
            serve(LivePage(view, source.name).make_app(), "127.0.0.1", options.port, "live", until=view.is_over)
        finally:
            view.stop()
    return view.state()


def _make_maps(
    options: PredictOptions, model: SaliencyModel, frames: Iterable[Any], stop: Callable[[], None]
) -> Generator[Any, None, None]:
    """The maps of live frames; see `stream_maps`."""
    # One frame ahead: a frame that waited longer would be an old one.
    return stream_maps(
        model, frames, num_ahead=1, alternate_mirror=options.alternate_mirror, temporal_filter=options.temporal_filter,
        stop=stop,
    )  # fmt: skip


@contextlib.contextmanager
def _reports(view: LiveView) -> Iterator[None]:
    """Prints the numbers every ten seconds and at the end."""
    ended = threading.Event()

    def report() -> None:
        """Prints until the end."""
        while not ended.wait(_REPORT_SECONDS):
            print(_describe(view.state()), flush=True)

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        print(_describe(view.state()), flush=True)


def _describe(state: dict) -> str:
    return (
        f"live: {state['maps']} maps of {state['frames']} frames, {state['dropped']} dropped, "
        f"{state['rate']:.1f} maps a second, {state['lag']:.2f} s behind"
    )
