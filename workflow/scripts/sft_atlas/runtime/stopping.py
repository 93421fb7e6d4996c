"""Being asked to stop: by SIGTERM, as SLURM warns a job before its time ends or it is preempted, or by Ctrl-C."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StoppedError(Exception):
    """A job that was asked to stop has saved what it can go on from; not a failure of its own."""


class StopRequest:
    """Whether the process has been asked to stop."""

    def __init__(self) -> None:
        self.received = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signals; whoever presses Ctrl-C twice does not want to wait."""
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = True


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """While the block runs, SIGTERM and SIGINT only set a flag, so that work ends where it can be taken up again.

    Signals reach the main thread alone; elsewhere the flag stays unset.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
