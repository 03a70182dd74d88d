"""The records about prefectlite itself that commands print as JSON: settings, registry; see ``json_schemas``.

``json_documents`` says which command prints which.
"""

from __future__ import annotations

from prefectlite.json_schemas import (
    Record,
    Scalar,
    many,
    maybe,
    table,
    text,
    whole,
    yes_or_no,
)

# What a registry has beside flow runs, as ``registry info`` counts it.
_COUNTED = (
    "task_runs",
    "log_lines",
    "cached_results",
    "deployments",
    "work_queues",
    "agents",
    "blocks",
    "notification_rules",
    "notifications",
)

SETTING = Record(
    "setting",
    {
        "name": text("Its name."),
        "value": maybe(Scalar.ANY, "A string, a number, a boolean or null; secrets are hidden."),
        "source": text("Where that comes from: environment, profile or default."),
        "profile": maybe(Scalar.TEXT, "The name of the profile, where it comes from one."),
        "description": text("What it does."),
    },
)
PROBLEM = Record(
    "problem",
    {
        "message": text("What is wrong."),
        "hint": maybe(Scalar.TEXT, "What to do about it; null where there is nothing to say."),
    },
)
_PROFILE = {
    "name": text("Its name."),
    "is_active": yes_or_no("Whether it is the one that is used."),
}
LISTED_PROFILE = Record(
    "profile",
    {**_PROFILE, "setting_count": whole("How many settings it has.")},
)
INSPECTED_PROFILE = Record(
    "profile, inspected",
    {
        **_PROFILE,
        "path": text("The file that it stands in."),
        "settings": table("Its settings by name; passwords are hidden."),
    },
)
VERSION = Record(
    "version",
    {
        "prefectlite": text("The version of prefectlite."),
        "python": text("The version of Python."),
        "sqlite": text("The version of SQLite."),
        "registry": text("The address of the registry, without a password."),
        "schema": whole("The schema that this version keeps the registry in."),
    },
)
REGISTRY = Record(
    "registry",
    {
        "url": text("Its address, without a password."),
        "path": maybe(Scalar.TEXT, "Its file; null where it is not in one."),
        "exists": yes_or_no("Whether it is there; what is not is as good as empty."),
        "file_bytes": whole("The size of its file, in bytes."),
        "log_bytes": whole("The size of what is not moved into that yet, in bytes."),
        "free_bytes": whole("What of the file is free and used again before it grows, in bytes."),
        "schema_version": whole("The version of its tables; 0 for none."),
        "newest_schema_version": whole("What this version of prefectlite would make of that."),
        "engine": text("What keeps it, with its version."),
        "journal_mode": text("How it keeps transactions whole."),
        "filesystem": maybe(Scalar.TEXT, "The type of its filesystem; null where not known."),
        "results": whole("How many results are stored in the home folder, of any registry."),
        "results_bytes": whole("The size of these, in bytes."),
        "flow_runs": table("How many flow runs are in each state, by the state's name."),
        **{name: whole(f"How many {name.replace('_', ' ')} are on record.") for name in _COUNTED},
        "notifications_given_up": whole("How many of the notifications were given up."),
        "oldest_at": maybe(Scalar.TIME, "When the oldest flow run was created; null for none."),
        "newest_at": maybe(Scalar.TIME, "When the newest flow run was created; null for none."),
    },
)
CHECKED_REGISTRY = Record(
    "registry, checked",
    {
        "url": text("Its address, without a password."),
        "exists": yes_or_no("Whether it is there; what is not is as good as empty."),
        "faults": many(PROBLEM, "What is wrong with it; empty for nothing."),
        "other_results": whole(
            "How many stored results are of no run of this registry; they may be of another one. 0 with"
            " --quick."
        ),
        "other_results_bytes": whole("The size of these, in bytes."),
        "leftover_secrets": whole("How many files of secrets no block needs; 0 with --quick."),
    },
)
BACKUP = Record(
    "backup",
    {
        "path": text("The file, an absolute path."),
        "bytes": whole("Its size, in bytes."),
    },
)
PRUNING = Record(
    "pruning",
    {
        "flow_runs": whole("How many flow runs were deleted, or would be."),
        "task_runs": maybe(
            Scalar.INTEGER,
            "How many task runs were deleted; null with --dry-run, which counts none.",
        ),
        "leftover_secrets": whole(
            "How many files of secrets were removed that no block needed, or would be."
        ),
        "is_dry_run": yes_or_no("Whether nothing was deleted, but only counted."),
    },
)
FINDING = Record(
    "finding",
    {
        "check": text("What was checked."),
        "status": text("ok, warning, error or skipped."),
        "message": text("What was found."),
        "fix": maybe(Scalar.TEXT, "What to do about it; null where there is nothing to do."),
    },
)
