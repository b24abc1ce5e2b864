"""What a signal does to a script before and after training: it ends it at once, with one line.

``fit`` has handlers of its own while it trains: there a signal ends the step and saves it. Python
runs handlers in the main thread, between two of its instructions, so a Ctrl-C during ``import jax``
would come out of the middle of some library as an exception, and one during a long compilation
would wait for its end. A thread that reads the signals as the kernel delivers them waits for
nothing. Nothing is imported here that takes time.
"""

import os
import signal
import sys
import threading
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_leaving = threading.Lock()


def leave(number: int, frame: FrameType | None = None) -> None:
    """End this process with the code that a shell gives to one that the signal killed."""
    if _leaving.acquire(blocking=False):
        os.write(2, f"stopped by {signal.Signals(number).name}\n".encode())
        os._exit(128 + number)


def stop_at_once() -> None:
    """From now on, wherever nobody else handles them, SIGINT and SIGTERM end this process."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, leave)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def listen() -> None:
        while True:
            for number in os.read(reader, 64):
                if number in _SIGNALS and signal.getsignal(number) is leave:
                    leave(number)

    threading.Thread(target=listen, name="signals", daemon=True).start()


def is_script(file: str) -> bool:
    """Whether Python was started with a script that lies beside ``file``."""
    return os.path.dirname(os.path.abspath(sys.argv[0])) == os.path.dirname(os.path.abspath(file))
