"""Ctrl-C and SIGTERM, in every phase of a command.

By default they raise KeyboardInterrupt, as Ctrl-C does, and the command ends with exit code 130.
Where something can be saved first, as in the training loop, `held` takes them as a request. During
an import, which may turn the exception into another one, or abort, they end the process at once. A
thread sees to it that the process ends: at the second signal, and where the exception is lost
(callbacks may swallow it) or cannot be raised because XLA is compiling or computing.
"""

import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
EXIT_CODE = 130
PATIENCE = 5.0  # seconds from a signal to the end, unless it is held
SECOND = 1.0  # seconds from a second signal to the end
ONE = 0.5  # seconds in which several signals count as one: launchers pass on what all have got
SENTENCE = "Stopped: the same command starts again, or resumes from what is saved."


class Interrupted(Exception):
    """A signal stopped the run after it had saved; the same command resumes it."""


class _Held:
    """What takes the first signal: the innermost `held`."""

    request: Callable[[], None] | None = None
    patient: Callable[[], bool] = staticmethod(lambda: False)
    last = -math.inf  # when the last signal that counts came
    before_end: Callable[[], None] | None = None  # of `listening`


# A pipe whose reader the same signal has ended, a closed stream, and one that is being written to
# by what a handler interrupts.
_CANNOT_PRINT = (OSError, ValueError, RuntimeError)


def say(sentence: str) -> None:
    """Prints to stderr, if that can be."""
    with suppress(*_CANNOT_PRINT):
        print(sentence, file=sys.stderr, flush=True)


def end_at_once(code: int) -> NoReturn:
    """Ends the process; what is printed comes out."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(*_CANNOT_PRINT):
            stream.flush()
    os._exit(code)


@contextmanager
def listening(before_end: Callable[[], None]) -> Iterator[threading.Event]:
    """Handles both signals as said above. Yields an event for the caller to set once it reports an
    end itself; `before_end` is called where the thread ends the process.

    Does nothing outside the main thread, where Python handles no signals.
    """
    reported = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield reported
        return
    woken, waker = socket.socketpair()
    waker.setblocking(False)
    before = {number: signal.signal(number, _handle) for number in SIGNALS}
    outer, _Held.before_end = _Held.before_end, before_end
    previous = signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(woken, reported, before_end), daemon=True)
    watch.start()
    hook, sys.unraisablehook = sys.unraisablehook, _raise_again
    try:
        yield reported
    finally:
        sys.unraisablehook = hook
        signal.set_wakeup_fd(previous)
        for number, handler in before.items():
            if signal.getsignal(number) is _handle:  # not once the end is `decided`
                signal.signal(number, handler)
        _Held.before_end = outer
        waker.close()
        watch.join()
        woken.close()


@contextmanager
def held(request: Callable[[], None], patient: Callable[[], bool]) -> Iterator[None]:
    """While active and `patient()`, the first signal calls `request`, which is given all the time
    that it needs; a second signal raises KeyboardInterrupt."""
    outer = _Held.request, _Held.patient
    _Held.request, _Held.patient = request, patient
    before = {number: signal.signal(number, _handle) for number in SIGNALS}
    try:
        yield
    finally:
        _Held.request, _Held.patient = outer
        for number, handler in before.items():
            signal.signal(number, handler)


def _handle(number, frame) -> None:
    before, _Held.last = _Held.last, time.monotonic()
    if _Held.last - before < ONE:
        return
    request, _Held.request = _Held.request, None
    if request is None or not _Held.patient():
        if _Held.before_end is not None and _is_importing(frame):
            ignore()
            _end_interrupted(_Held.before_end)
        raise KeyboardInterrupt
    request()


def decided(code: int) -> None:
    """Signals end this process with `code` from now on; does nothing outside the main thread."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, lambda *_: end_at_once(code))


def ignore() -> None:
    """Ignores signals: for the last moments of a process, when no handler can do anything."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _end_interrupted(before_end: Callable[[], None]) -> NoReturn:
    before_end()
    say(SENTENCE)
    end_at_once(EXIT_CODE)


def _raise_again(unraisable) -> None:
    """Python drops an exception that is raised in a callback of its garbage collection, as JAX has
    one: the signal is sent again, at a moment that is hopefully another one."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
        return
    _Held.last = -math.inf
    again = threading.Timer(0.05, signal.pthread_kill, (threading.main_thread().ident, SIGNALS[0]))
    again.daemon = True
    again.start()


def _watch(woken: socket.socket, reported: threading.Event, before_end: Callable) -> None:
    """Ends the process where the main thread does not."""
    signals, deadline, now = 0, None, -math.inf
    while True:
        try:
            woken.settimeout(deadline and max(deadline - time.monotonic(), 0.01))
            received = woken.recv(1)
        except TimeoutError:
            break
        if not received:  # closed: the main thread has ended it
            return
        now, last = time.monotonic(), now
        if received[0] in SIGNALS and now - last >= ONE:
            signals += 1
            if signals > 1 or not _Held.patient():
                deadline = now + (PATIENCE if signals == 1 else SECOND)
    if not reported.is_set():
        _end_interrupted(before_end)
