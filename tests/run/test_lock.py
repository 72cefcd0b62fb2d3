"""The output folder is proved writable, and one live run holds it at a time."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest

from dd_jax.errors import CheckpointError, ConfigError
from dd_jax.run.lock import LOCK_NAME, OWNER_NAME, RunLock, prepare_folder

fcntl = pytest.importorskip("fcntl")

HOLDER = """
import sys
from dd_jax.run.lock import RunLock
with RunLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def start_holder(folder, before: str = "") -> subprocess.Popen:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    child = subprocess.Popen([sys.executable, "-c", before + HOLDER, str(folder)], env=env,
                             text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout.readline() == "held\n"
    return child


def test_f6_a_good_folder_is_made_and_left_empty(tmp_path):
    made = prepare_folder(tmp_path / "run")
    assert made == tmp_path / "run" and made.is_dir() and not list(made.iterdir())
    assert prepare_folder(made) == made
    assert prepare_folder(tmp_path / "missing" / "parents").is_dir()


def test_f6_bad_folders_are_refused_by_name(tmp_path):
    file = tmp_path / "file"
    file.write_text("keep me")
    with pytest.raises(ConfigError, match="file is a file"):
        prepare_folder(file)
    with pytest.raises(ConfigError, match="its parent .*file is a file"):
        prepare_folder(file / "run")
    with pytest.raises(ConfigError, match="its parent .*file is a file"):
        prepare_folder(file / "deep" / "run")
    assert file.read_text() == "keep me" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a /proc")
@pytest.mark.parametrize("path", ["/proc/self", "/proc/dd_jax_run"])
def test_f6_a_folder_that_takes_no_files_is_refused(path):
    with pytest.raises(ConfigError, match="nothing can be written"):
        prepare_folder(path)


def test_f12_a_live_run_is_refused_and_a_killed_one_taken_over(tmp_path):
    child = start_holder(tmp_path)
    try:
        with pytest.raises(CheckpointError, match=f"in use by pid {child.pid} on ") as error:
            RunLock(tmp_path).__enter__()
        # A live run's lock that is removed protects nothing: nobody is told to do so.
        assert not any(w in str(error.value) for w in ("remove", "delete", LOCK_NAME))
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
    left = json.loads((tmp_path / OWNER_NAME).read_text())
    assert left["pid"] == child.pid and left["host"] == socket.gethostname()
    with RunLock(tmp_path):
        assert json.loads((tmp_path / OWNER_NAME).read_text())["pid"] == os.getpid()


def test_f12_a_second_lock_in_one_process_is_refused_until_released(tmp_path):
    with RunLock(tmp_path) as lock:
        with pytest.raises(CheckpointError, match=f"pid {os.getpid()}"):
            RunLock(tmp_path).__enter__()
        with pytest.raises(CheckpointError, match=f"pid {os.getpid()}"):
            lock.__enter__()
    assert lock.path.exists() and not (tmp_path / OWNER_NAME).exists()
    with RunLock(tmp_path):
        pass


def test_the_lock_is_released_by_an_exception(tmp_path):
    with pytest.raises(ZeroDivisionError), RunLock(tmp_path):
        raise ZeroDivisionError
    with RunLock(tmp_path):
        pass


def test_a_missing_folder_is_a_typed_error(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be opened"):
        RunLock(tmp_path / "nowhere").__enter__()


def test_an_owner_on_another_host_is_taken_over_aloud(tmp_path):
    (tmp_path / OWNER_NAME).write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    with pytest.warns(UserWarning, match="pid 1 on elsewhere"), RunLock(tmp_path):
        pass


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"pid": "x"}', "\0\0", "[" * 4000,
                                     '{"pid": 1e999, "host": [[]]}'])
@pytest.mark.parametrize("name", [LOCK_NAME, OWNER_NAME])
def test_garbage_in_its_files_does_not_block(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with RunLock(tmp_path), pytest.raises(CheckpointError, match="in use by pid"):
        RunLock(tmp_path).__enter__()


@pytest.mark.parametrize("name", [LOCK_NAME, OWNER_NAME])
def test_a_link_in_place_of_its_files_leaves_the_target_alone(tmp_path, name):
    target = tmp_path / "precious"
    target.write_text("years of work")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(target)
    try:
        with RunLock(tmp_path / "run"):
            pass
    except CheckpointError as error:
        assert "cannot be opened" in str(error)
    assert target.read_text() == "years of work"


FORKING_HOLDER = """
import os, sys, time
from dd_jax.run.lock import RunLock
lock = RunLock(sys.argv[1]).__enter__()
worker = os.fork()
if worker == 0:
    print(os.getpid(), flush=True)  # after the fork hooks have run
time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_that_outlives_a_killed_run_does_not_keep_the_lock(tmp_path):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    run = subprocess.Popen([sys.executable, "-c", FORKING_HOLDER, str(tmp_path)], env=env,
                           text=True, stdout=subprocess.PIPE)
    worker = int(run.stdout.readline())
    try:
        with pytest.raises(CheckpointError, match=f"pid {run.pid} on"):
            RunLock(tmp_path).__enter__()
        run.kill()
        run.wait()
        os.kill(worker, 0)  # still there
        with RunLock(tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        run.kill()
        run.communicate()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_forked_child_that_leaves_the_block_frees_nothing(tmp_path):
    with RunLock(tmp_path) as lock:
        child = os.fork()
        if child == 0:
            lock.__exit__()
            os._exit(0)
        os.waitpid(child, 0)
        assert (tmp_path / OWNER_NAME).exists()
        with pytest.raises(CheckpointError, match=f"pid {os.getpid()}"):
            RunLock(tmp_path).__enter__()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs a /proc")
def test_leaving_frees_the_folder_even_while_a_copy_of_the_file_is_open(tmp_path):
    with RunLock(tmp_path) as lock:
        (held,) = (int(fd.name) for fd in pathlib.Path("/proc/self/fd").iterdir()
                   if os.path.realpath(fd) == str(lock.path))
        copy = os.dup(held)
    try:
        with RunLock(tmp_path):
            pass
    finally:
        os.close(copy)


NO_LOCKS = """
import errno, fcntl, socket
def missing(*_):
    raise OSError(errno.ENOSYS, "no locks here")
fcntl.flock = missing
"""


class TestWithoutSystemLocks:
    """On a file system without locks filelock goes by the owner that it writes into the file."""

    pytestmark = pytest.mark.filterwarnings("ignore:flock not supported")

    @pytest.fixture(autouse=True)
    def no_locks(self, monkeypatch):
        def missing(*_):
            raise OSError(errno.ENOSYS, "no locks here")

        monkeypatch.setattr(fcntl, "flock", missing)

    def test_live_is_refused(self, tmp_path):
        with RunLock(tmp_path), pytest.raises(CheckpointError, match=f"pid {os.getpid()}"):
            RunLock(tmp_path).__enter__()

    def test_dead_is_taken_over(self, tmp_path):
        child = start_holder(tmp_path, NO_LOCKS)
        with pytest.raises(CheckpointError, match=f"pid {child.pid}"):
            RunLock(tmp_path).__enter__()
        child.kill()
        child.communicate()
        with RunLock(tmp_path):
            pass

    def test_another_host_is_refused(self, tmp_path):
        child = start_holder(tmp_path, NO_LOCKS + "socket.gethostname = lambda: 'elsewhere'")
        child.kill()
        child.communicate()
        with pytest.raises(CheckpointError, match="on elsewhere"):
            RunLock(tmp_path).__enter__()
