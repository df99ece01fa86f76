"""The log of a run where its disk fails."""

import errno
import os
import threading

import pytest

from sphere_jax.training.run_log import RunLog, read_rows


def test_a_disk_that_tensorboard_cannot_write_to(tmp_path, capsys):
    """Its thread ends; rows are still written, and no row waits for that thread."""
    before, run_log = threading.excepthook, RunLog(tmp_path)

    def full(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run_log._board.file_writer.event_writer._ev_writer.write_event = full
    for step in range(200):  # more than the queue holds
        run_log.write("vae", step, {"loss": 1.0})
        run_log.text("note", "text")
    run_log.close()
    assert len(read_rows(run_log.path)) == 200 and threading.excepthook is before
    out, err = capsys.readouterr()
    assert out.count("TensorBoard's files cannot be written (No space left on device") == 1
    assert not err


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_other_threads_end_as_before(tmp_path, monkeypatch):
    ended = []
    monkeypatch.setattr(threading, "excepthook", ended.append)
    run_log = RunLog(tmp_path)
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    run_log.close()
    assert [each.exc_type for each in ended] == [ZeroDivisionError]
