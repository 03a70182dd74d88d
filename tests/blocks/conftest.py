"""What the tests of blocks share: classes of their own, which are forgotten when a test ends."""

import pytest

from prefectlite import block_types


@pytest.fixture(autouse=True)
def _forget_types():
    """Leave to the next test the types that this one found."""
    before = {**block_types.known}
    yield
    block_types.known.clear()
    block_types.known.update(before)


@pytest.fixture
def secrets(home):
    """The files of secrets that there are, by name."""

    def find():
        return {path.name: path for path in (home / "secrets").iterdir() if path.name != "lock"}

    return find


@pytest.fixture
def stored(home):
    """All bytes that the registry has written."""

    def read():
        return b"".join(path.read_bytes() for path in home.glob("registry.db*"))

    return read
