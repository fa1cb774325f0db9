"""Ctrl-C between steps, never inside one: half an optimizer step is no state to save."""

import contextlib
import signal
import threading


@contextlib.contextmanager
def stop_on_signals():
    """An Event that the first Ctrl-C (or SIGTERM) sets: the step under way is finished and saved. The second stops.

    The handler only sets the event: printing from it could meet a print that it has interrupted.
    """
    event = threading.Event()

    def ask(number, frame):
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
