"""Agents of a real cron: what it starts them with is enough, and their runs outlive its jobs."""

import os
import shutil
import subprocess
import sys
from collections import Counter

import psutil
import pytest

DEADLINE_SECONDS = 60
# A minute until cron looks at its table again, and a minute for what it then starts.
_TICK_SECONDS = 120
# No other crontab is seen or run in it, and cron's lock and its mark of a reboot are not ours.
_PRIVATE = """
mount -t tmpfs none /run && mount -t tmpfs none /etc/cron.d &&
mount -t tmpfs none /var/spool/cron/crontabs && mount --bind /dev/null /etc/crontab || exit 99
install -m 600 "$1" /var/spool/cron/crontabs/root && exec cron -f
"""


@pytest.fixture
def cron(tmp_path):
    """Start a cron that knows this crontab alone; return its process."""
    started = []

    def start(crontab):
        if os.getuid() != 0 or not shutil.which("cron") or not shutil.which("unshare"):
            pytest.skip("needs root, Linux with unshare(1), and Debian's package cron")
        path = tmp_path / "crontab"
        path.write_text(crontab, encoding="utf-8")
        started.append(
            subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", _PRIVATE, "sh", str(path)],
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "TERM": "xterm"},
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        if process.wait(DEADLINE_SECONDS) == 99:
            pytest.skip("this machine does not let root mount a filesystem")


def descendants(process):
    """Return what cron's jobs have running; a zombie has ended."""
    found = psutil.Process(process.pid).children(recursive=True)
    return [one for one in found if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("when", ["@reboot", pytest.param("* * * * *", marks=pytest.mark.long)])
def test_of_ticks_that_overlap_each_run_is_begun_once_and_outlives_them(site, cron, when):
    notes = [site.add(seconds=9) for _ in range(6)]
    run = site.add("wait", name="grüße")
    agent = f"{sys.executable} -m prefectlite agent start --run-once"
    # What holds a job's output open holds up tee, and with it the job.
    job = f"cd {site.folder}; ({agent}; echo $? >> code-$n) 2>&1 | tee -a told-$n; touch ended-$n"
    crond = cron(
        f"PREFECTLITE_HOME={site.home}\n"
        f"PYTHONPATH={site.sources}\n"
        f"{when} cd {site.folder} && (env; tty; readlink /proc/self/fd/0) > bare; touch bare-done\n"
        f"{when} n=1; {job}\n{when} n=2; {job}\n"
    )

    def has(name):
        return lambda: crond.poll() is not None or (site.folder / name).exists()

    for name in ("bare-done", "ended-1", "ended-2"):
        site.until(has(name), name, seconds=_TICK_SECONDS)
    assert crond.poll() is None
    bare = (site.folder / "bare").read_text().splitlines()
    assert "PATH=/usr/bin:/bin" in bare
    assert not any(line.startswith(("LANG=", "LC_", "TERM=", "LOGNAME=x")) for line in bare)
    assert bare[-2] == "not a tty"
    assert bare[-1].startswith("pipe:")
    told = [(site.folder / f"told-{number}").read_text(encoding="utf-8") for number in (1, 2)]
    codes = "".join((site.folder / f"code-{number}").read_text() for number in (1, 2))
    assert set(codes.split()) == {"0"}, told
    launched = [line for text in told for line in text.splitlines() if "Launched" in line]
    assert len(launched) == 7, told
    assert "Launched flow run 'grüße'" in "".join(told)
    site.until_state("Completed", *notes)
    site.until_begun(run)
    # The jobs are over, and cron waits for nothing of theirs; the run goes on.
    site.until(lambda: not descendants(crond) or when != "@reboot", "the end of cron's jobs")
    assert psutil.pid_exists(site.find(run).supervisor.pid)
    crond.terminate()
    crond.wait(DEADLINE_SECONDS)
    assert site.state(run) == "Running"
    assert Counter(site.begun()) == Counter(one.id for one in [*notes, run])
    ended = subprocess.run(
        [sys.executable, "-m", "prefectlite", "flow-run", "cancel", "--wait", "grüße"],
        env={**os.environ, "PYTHONPATH": site.sources},
        capture_output=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert site.state(run) == "Cancelled"
    site.until_empty()
