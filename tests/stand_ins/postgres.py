"""A PostgreSQL server of the tests' own: on loopback, in a temporary folder, run by an unprivileged user."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import psycopg


class Lacking(Exception):
    """No server can be started here; the message says what is missing."""


class Postgres:
    """One server. `stop` and `start` are what a database that is away for a while looks like."""

    def __init__(self) -> None:
        self._bin_dir = _bin_dir()
        self._user = _unprivileged_user()
        self.folder = Path(tempfile.mkdtemp(prefix="xray-vqa-postgres-"))
        if self._user:
            shutil.chown(self.folder, self._user)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._run("initdb", "-D", f"{self.folder}/data", "-U", "audit", "-A", "trust", "-E", "UTF8", "--locale=C")
        self.start()

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder}"
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-l", f"{self.folder}/log", "-w", "-o", options, "start")

    def stop(self) -> None:
        """Stop as a crash would: connections break off, nothing is tidied up."""
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-m", "immediate", "-w", "stop")

    def freeze(self) -> None:
        """Let connections stand and nothing answer, as behind a network that swallows packets."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def emptied(self) -> str:
        """The URL of its database, with nothing in it. One for all tests: making and removing each takes seconds."""
        with psycopg.connect(f"postgresql://audit@127.0.0.1:{self.port}/postgres", autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return f"postgresql://audit@127.0.0.1:{self.port}/postgres"

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def _signal_all(self, number: int) -> None:
        pid = int((self.folder / "data/postmaster.pid").read_text().splitlines()[0])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for process in (pid, *map(int, children)):
            os.kill(process, number)

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [f"{self._bin_dir}/{program}", *words],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, user=self._user, cwd="/",
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"}, check=False, timeout=120,
        )  # fmt: skip
        if done.returncode:
            raise Lacking(f"{program}: {done.stderr.strip()[-500:]}")


def _bin_dir() -> Path:
    """Where Debian or the PATH has the server; as root it is installed from Debian if need be."""
    for installed in (False, True):
        if installed:
            if os.geteuid() or not shutil.which("apt-get"):
                break
            command = "apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql"
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, check=False)
            if done.returncode:
                break
        found = shutil.which("initdb")
        places = [*Path("/usr/lib/postgresql").glob("*/bin/initdb"), *([Path(found)] if found else [])]
        if places:
            return places[0].resolve().parent
    raise Lacking("PostgreSQL is not installed: apt-get install postgresql")


def _unprivileged_user() -> str | None:
    """The server refuses to run as root."""
    if os.geteuid():
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)
