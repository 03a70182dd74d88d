"""The approval example: run in one process, and answered from another."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from statistics import fmean

import pytest

from prefectlite import task
from prefectlite.examples import approval
from prefectlite.run_filters import FlowRunFilter

SOURCES = str(Path(approval.__file__).parents[2])
DEADLINE_SECONDS = 60
RUN, RESUME = (
    line.strip() for line in approval.__doc__.splitlines() if line.startswith("    prefectlite ")
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "somewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def _command(line):
    return [sys.executable, "-W", "error", "-m", *shlex.split(line)]


def _environment():
    return {**os.environ, "PYTHONPATH": SOURCES}


def _second(line):
    """Run a command line from a second process."""
    return subprocess.run(
        _command(line),
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


def _inspect(name):
    return json.loads(_second(f"prefectlite flow-run inspect {name} --json").stdout)


class Waiting:
    """A run of the example that is Paused, in a process that waits for an answer."""

    def __init__(self, process, name):
        self.process = process
        self.name = name

    def answer(self, options):
        """Answer it from a second process; return what that command left behind."""
        return _second(f"prefectlite flow-run resume {self.name} {options}")

    def end(self):
        """Wait for its end; return its exit code, stdout and stderr."""
        out, said = self.process.communicate(timeout=DEADLINE_SECONDS)
        return self.process.returncode, out, said

    def approve(self):
        """Approve it; return its document and stderr."""
        assert self.answer("--input approved=true").returncode == 0
        exit_code, out, said = self.end()
        assert exit_code == 0, said
        return json.loads(out), said


@pytest.fixture
def start(until, registry):
    """Start a command line that runs the example, and see from this process that it waits."""
    processes = []

    def start_and_wait(line, name=None):
        process = subprocess.Popen(
            _command(line if name is None else f"{line} --name {name} --json"),
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)

        def paused():
            runs = registry.list_flow_runs(FlowRunFilter(states=["paused"]))
            return next((run.name for run in runs if name in (None, run.name)), None)

        told = "a run that is paused"
        return Waiting(process, until(paused, told, told=lambda: f"it ended: {process.poll()}"))

    yield start_and_wait
    for process in processes:
        process.kill()
        process.communicate()


def _birds():
    with approval.DATA.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["bill_length_mm"]]


def _share_right(path):
    """Return the share of birds that the model of a file classifies rightly: our own few lines."""
    file, right = json.loads(path.read_text(encoding="utf-8")), 0
    for bird in _birds():
        scaled = [(float(bird[name]) - mid) / unit for name, (mid, unit) in file["scales"].items()]
        scores = {
            species: constant + sum(weight * x for weight, x in zip(weights, scaled, strict=True))
            for species, (constant, *weights) in file["weights"].items()
        }
        right += max(scores, key=scores.get) == bird["species"]
    return right / len(_birds())


def _matrix(said):
    """Return what the log says that birds were taken for: counts by species, and by guess."""
    words = [line.split(" - ", 1)[1].split() for line in said.splitlines() if " - " in line]
    start = next(index for index, each in enumerate(words) if each[:2] == ["taken", "for"])
    names = words[start][2:]
    rows = words[start + 1 : start + 1 + len(names)]
    assert [row[0] for row in rows] == names
    return {row[0]: dict(zip(names, map(int, row[1:]), strict=True)) for row in rows}


def test_the_data_is_what_was_published():
    with approval.DATA.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["species"] for row in rows) == {
        "Adelie": 152,
        "Gentoo": 124,
        "Chinstrap": 68,
    }
    assert len(_birds()) == 342
    means = {name: fmean(float(bird[name]) for bird in _birds()) for name in list(rows[0])[1:]}
    assert {name: round(mean, 2) for name, mean in means.items()} == {
        "bill_length_mm": 43.92,
        "bill_depth_mm": 17.15,
        "flipper_length_mm": 200.92,
        "body_mass_g": 4201.75,
    }


def test_it_waits_for_a_right_answer_then_saves_a_model_that_classifies(start, folder):
    waiting = start(RUN, "wise-owl")
    assert _second("prefectlite flow-run wait wise-owl --for paused").returncode == 0
    shown = _second("prefectlite flow-run inspect wise-owl").stdout
    assert "Waits for        approval\n" in shown
    assert "\napproved  BOOLEAN  -  " in shown
    for options in ("", "--input approved=perhaps", "--input aproved=true"):
        refused = waiting.answer(options)
        assert refused.returncode == 2
        assert "it asks for: approved (BOOLEAN), comment (TEXT)" in refused.stderr
    before = _inspect("wise-owl")
    assert before["state"]["name"] == "Paused"
    assert before["task_run_counts"] == {"Completed": 10}
    assert not [*folder.iterdir()]

    resumed = _second(RESUME.replace("ID", "wise-owl"))
    assert resumed.returncode == 0, resumed.stderr
    exit_code, out, said = waiting.end()
    assert exit_code == 0, said
    document = json.loads(out)
    assert document["task_run_counts"] == {"Completed": 13}
    assert [path.name for path in folder.iterdir()] == ["penguins.json"]
    assert document["result"]["fit"] == _share_right(folder / "penguins.json")
    assert "Traceback" not in said


def test_what_the_person_reads_is_the_accuracy_on_unseen_birds(start):
    said = _second(f"prefectlite flow-run logs {start(RUN, 'wise-owl').name}").stdout
    matrix = _matrix(said)
    total = sum(sum(row.values()) for row in matrix.values())
    right = sum(row[species] for species, row in matrix.items())
    assert total == 70
    # A model that has learned nothing would take all for the most frequent species.
    assert right > 60 > max(sum(row.values()) for row in matrix.values())
    assert f"{right / total:.1%} of unseen birds are right" in said
    assert f"saved to {Path.cwd() / 'penguins.json'}" in said
    assert re.search(r"To resume: prefectlite flow-run resume \S+ --input approved=BOOLEAN", said)


def test_no_bird_serves_two_purposes(monkeypatch):
    used = {"train": [], "evaluate": []}
    real_train, real_evaluate = approval.train.fn, approval.evaluate.fn

    @task
    def train(birds, penalty):
        used["train"].append(Counter((species, *measures) for species, measures in birds))
        return real_train(birds, penalty)

    @task
    def evaluate(model, birds):
        used["evaluate"].append(Counter((species, *measures) for species, measures in birds))
        return real_evaluate(model, birds)

    monkeypatch.setattr(approval, "train", train)
    monkeypatch.setattr(approval, "evaluate", evaluate)
    approval.train_and_save(timeout_seconds=0, return_state=True)
    training, choosing, unseen = used["train"][0], used["evaluate"][0], used["evaluate"][-1]
    assert used["train"] == [training] * 4
    assert used["evaluate"] == [choosing] * 4 + [unseen]
    birds = Counter((species, *measures) for species, measures in approval.load.fn())
    assert training + choosing + unseen == birds


def test_two_runs_give_the_same_numbers_and_another_seed_others(start, folder):
    said, results, models = {}, {}, {}
    for name, seed in [("first", 0), ("second", 0), ("other", 1)]:
        line = f"prefectlite run prefectlite.examples.approval -p output={name} -p seed={seed}"
        document, log = start(line, name).approve()
        said[name], results[name] = _matrix(log), document["result"]
        models[name] = (folder / name).read_bytes()
    assert said["first"] == said["second"] != said["other"]
    assert results["first"] == results["second"]
    assert models["first"] == models["second"] != models["other"]


def test_what_is_not_approved_is_cancelled_and_replaces_nothing(start, folder):
    (folder / "penguins.json").write_text("an earlier model")
    waiting = start(RUN, "wise-owl")
    assert waiting.answer("--input approved=false --input comment='too few'").returncode == 0
    exit_code, out, _ = waiting.end()
    assert exit_code == 143
    document = json.loads(out)
    assert document["state"]["name"] == "Cancelled"
    assert document["state"]["message"] == "Not approved. too few"
    assert document["task_run_counts"] == {"Completed": 10}
    assert (folder / "penguins.json").read_text() == "an earlier model"


def test_without_an_answer_in_time_it_fails(folder):
    line = "prefectlite run prefectlite.examples.approval -p timeout_seconds=0.1 --json"
    ended = _second(line)
    assert ended.returncode == 1
    state = json.loads(ended.stdout)["state"]
    assert state["name"] == "Failed"
    assert state["message"] == "The flow was paused and never resumed."
    assert not [*folder.iterdir()]


def test_it_is_a_program_too_and_saves_in_the_current_folder(start, folder):
    waiting = start("prefectlite.examples.approval")
    assert waiting.answer("--input approved=true").returncode == 0
    exit_code, _, said = waiting.end()
    assert exit_code == 0, said
    assert [path.name for path in folder.iterdir()] == ["penguins.json"]
