"""The folder of secrets: durable before what is in it. The files themselves: ``blocks/test_block_secrets``."""

import errno
import os
from pathlib import Path

import pytest

from prefectlite.blocks.system import Secret
from prefectlite.errors import NotFoundError, OutputError


@pytest.mark.parametrize("before", ["nothing", "a folder whose maker died", "a folder in use"])
def test_the_names_of_the_folders_are_durable_before_the_first_secret_and_synced_no_more(
    registry, home, monkeypatch, before
):
    if before == "a folder whose maker died":
        (home / "secrets").mkdir(mode=0o700)
    elif before == "a folder in use":
        Secret(value="r").save("first")
    done, fsync = [], os.fsync

    def note(descriptor):
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    Secret(value="s").save("a")
    folders = [path for path in done if path.is_dir()]
    if before == "a folder in use":
        assert folders == [home / "secrets"]
    else:
        assert folders[:2] == [home, home.parent]
        assert folders[-1] == home / "secrets"


def test_a_secret_whose_name_cannot_be_synced_is_not_saved(registry, home, monkeypatch):
    Secret(value="s").save("a")
    fsync = os.fsync

    def fail(descriptor):
        if Path(f"/proc/self/fd/{descriptor}").readlink() == home / "secrets":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match=r"cannot be kept in .*: Input/output error"):
        Secret(value="s").save("b")
    with pytest.raises(NotFoundError):
        Secret.load("b")
    assert Secret.load("a").get() == "s"
