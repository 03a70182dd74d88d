"""What is installed: a wheel, built by pip as it is for everybody."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_DEADLINE_SECONDS = 300


@pytest.mark.long
def test_a_wheel_has_the_completions_and_the_manuals_as_data(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", str(_ROOT)]
    subprocess.run(
        [*command, "--wheel-dir", str(tmp_path / "wheels")], check=True, timeout=_DEADLINE_SECONDS
    )
    (wheel,) = (tmp_path / "wheels").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        found = {
            name.partition(".data/data/share/")[2]: archive.read(name)
            for name in archive.namelist()
            if ".data/data/share/" in name
        }
    for name, kept in {
        "bash-completion/completions/prefectlite": "completions/prefectlite.bash",
        "zsh/site-functions/_prefectlite": "completions/_prefectlite",
        "fish/vendor_completions.d/prefectlite.fish": "completions/prefectlite.fish",
        "man/man1/prefectlite.1": "man/man1/prefectlite.1",
    }.items():
        assert found[name] == (_ROOT / kept).read_bytes()
