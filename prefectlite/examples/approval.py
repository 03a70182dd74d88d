"""Train a model, and save it only if a person approves: a flow that waits in the middle.

::

    prefectlite run prefectlite.examples.approval -p output=penguins.json
    prefectlite flow-run resume ID --input approved=true --input comment="good enough"

Models that tell three species of penguins apart are trained side by side, and the best is tried on
birds that none has seen. Then the run is Paused until the second command answers it, in another
shell. Approved, the model is trained again on all birds, and saved; if not, the run is Cancelled, and
unanswered it has Failed. The 344 penguins ship with the example: Kristen Gorman and the Palmer Station
LTER measured all but two of them, in Antarctica (doi:10.1371/journal.pone.0090081; CC0: public domain).
"""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from operator import mul
from pathlib import Path
from random import Random

from pydantic import BaseModel

from prefectlite import State, flow, pause_flow_run, task, unmapped
from prefectlite.states import Cancelled

DATA = Path(__file__).parent / "data" / "penguins.csv"
SCALES = {"bill_length_mm": (44, 5.5), "bill_depth_mm": (17, 2), "flipper_length_mm": (200, 14)}
PENALTIES = [0.1, 0.01, 0.001, 0.0]  # the first of equally good ones: it keeps the model simplest
PASSES, STEP = 20, 0.1
Bird = tuple[str, list[float]]  # its species; then 1, and its measures on their SCALES
Model = dict[str, list[float]]  # for each species a constant, and a weight for each measure


class Approval(BaseModel):
    """What the person is asked."""

    approved: bool
    comment: str = ""


def probabilities(model: Model, measures: list[float]) -> dict[str, float]:
    """Return how likely a bird is to be of each species."""
    odds = {species: math.exp(sum(map(mul, model[species], measures))) for species in model}
    return {species: odds[species] / sum(odds.values()) for species in odds}


def classify(model: Model, measures: list[float]) -> str:
    """Return the species that a bird most likely is of."""
    return max(model, key=lambda species: sum(map(mul, model[species], measures)))


@task
def load() -> list[Bird]:
    """Read the birds that were measured."""
    birds = []
    with DATA.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if all(row.values()):
                measures = [(float(row[name]) - mid) / unit for name, (mid, unit) in SCALES.items()]
                birds.append((row["species"], [1.0, *measures]))
    return birds


@task(task_run_name="train with penalty {penalty}")
def train(birds: list[Bird], penalty: float) -> Model:
    """Fit a multinomial logistic regression by gradient descent; a penalty keeps weights small."""
    model = {species: [0.0] * (1 + len(SCALES)) for species, _ in sorted(birds)}
    for _ in range(PASSES):
        for species, measures in birds:
            for name, probability in probabilities(model, measures).items():
                error = probability - (name == species)
                pairs = zip(model[name], measures, strict=True)
                model[name] = [w - STEP * (error * m + penalty * w) for w, m in pairs]
    return model


@task
def evaluate(model: Model, birds: list[Bird]) -> float:
    """Return the share of birds that a model takes for what they are."""
    return sum(species == classify(model, measures) for species, measures in birds) / len(birds)


def show(model: Model, birds: list[Bird]) -> None:
    """Print how many birds of each species a model takes for which."""
    taken = Counter((species, classify(model, measures)) for species, measures in birds)
    print("taken for ", *(f"{name:>10}" for name in model))
    for species in model:
        print(f"{species:<10}", *(f"{taken[species, name]:>10}" for name in model))


@task
def save(model: Model, output: Path) -> Model:
    """Write a model as JSON, all of it or nothing; return what is read back from the file."""
    draft = output.with_name(output.name + ".new")
    draft.write_text(json.dumps({"scales": SCALES, "weights": model}, indent=2), encoding="utf-8")
    saved: Model = json.loads(draft.replace(output).read_text(encoding="utf-8"))["weights"]
    return saved


@flow(log_prints=True)
def train_and_save(
    output: Path = Path("penguins.json"), timeout_seconds: float | None = 3600, seed: int = 0
) -> dict[str, float] | State:
    """Train a model, have it approved by hand, and save it; return how good it is.

    Args:
        output: Where to save the model; ``penguins.json`` in the current folder if not given.
        timeout_seconds: How long to wait for an answer; None for ever.
        seed: Decides which birds are for training, which for choosing and which for the test.
    """
    birds = load()
    Random(seed).shuffle(birds)  # noqa: S311 - it is to be the same again
    unseen, choosing, training = birds[:70], birds[70:140], birds[140:]
    models = train.map(unmapped(training), PENALTIES)
    scores = [future.result() for future in evaluate.map(models, unmapped(choosing))]
    best = scores.index(max(scores))
    accuracy = evaluate(models[best].result(), unseen)
    show(models[best].result(), unseen)
    print(f"{accuracy:.1%} of unseen birds are right; approved, it is saved to {output.absolute()}")
    answer = pause_flow_run(timeout=timeout_seconds, key="approval", wait_for_input=Approval)
    if not answer.approved:
        return Cancelled(message=f"Not approved. {answer.comment}".strip())

    model = save(train(birds, PENALTIES[best]), output)
    return {"penalty": PENALTIES[best], "accuracy": accuracy, "fit": evaluate(model, birds)}


if __name__ == "__main__":
    train_and_save()
