"""Runs one program and leaves nothing of it behind: neither when the program dies, nor when the supervisor is killed.

Run as `python guard.py SUPERVISOR_PID GRACE_SECONDS STOP_SIGNAL PROGRAM…`. Linux tells a process whose parent is gone
when it asked for that (`PR_SET_PDEATHSIG`, prctl(2)), but vLLM's engine, a child of vLLM's server, does not ask and
stays for ever when the server is killed (seen on 0.32). So this process stands between, and ends the program's whole
group.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


def main(supervisor: int, grace: float, stop: int, command: list[str]) -> int:
    """Return the program's exit status, 128 + n when a signal ended it.

    SIGTERM is passed on as `stop`, and enforced.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    _signal_when_parent_dies(signal.SIGTERM)
    if os.getppid() != supervisor:  # it died before we asked
        return 1
    program = subprocess.Popen(command, start_new_session=True, preexec_fn=_in_child)  # noqa: PLW1509  # no threads here
    deadline = None
    while program.poll() is None:
        received = signal.sigtimedwait(_SIGNALS, 1.0)
        if received is not None and received.si_signo != signal.SIGCHLD and deadline is None:
            deadline = time.monotonic() + grace
            program.send_signal(stop)
        if deadline is not None and time.monotonic() > deadline:
            program.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)
    return program.returncode if program.returncode >= 0 else 128 - program.returncode


def _in_child() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    _signal_when_parent_dies(signal.SIGKILL)


def _signal_when_parent_dies(number: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]))
