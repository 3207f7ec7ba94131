"""What the pool is given to do; worker processes import it."""

from __future__ import annotations

import os
import signal
import threading
import time


def work(what: str) -> object:
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hang":
        time.sleep(1000)
    if what == "raise":
        raise KeyError("mine")
    if what == "thread":
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    return os.getpid()
