"""The records that commands print as JSON, with the meaning of each field; see ``json_schemas``.

``json_documents`` says which command prints which.
"""

from __future__ import annotations

from prefectlite.json_schemas import (
    Field,
    Record,
    Scalar,
    many,
    maybe,
    table,
    text,
    texts,
    time,
    whole,
    yes_or_no,
)

_STATE = {
    "type": text("What it is to the engine, such as FAILED; see prefectlite-states(7)."),
    "name": text("What it is to a person, such as TimedOut."),
    "message": maybe(Scalar.TEXT, "Why; null where the name says it all."),
}
STATE = Record("state", {**_STATE, "timestamp": time("When the run took it.")})
CHANGE = Record(
    "state that a run has had",
    {
        "version": whole("1 for its first state, 2 for the next, and so on."),
        "actor": text("Who made the change, as USER@HOST:PID."),
    },
    base=STATE,
)
_RUN = {
    "id": text("Its id, a UUID."),
    "name": text("Its name."),
    "state": Field(STATE, "The state that it is in."),
    "tags": texts("Its tags, sorted."),
    "run_count": whole("How many attempts were begun."),
    "created_at": time("When it was put on record."),
    "started_at": maybe(Scalar.TIME, "When its first attempt began; null before that."),
    "ended_at": maybe(Scalar.TIME, "When it took its final state; null before that."),
    "duration_seconds": maybe(
        Scalar.NUMBER, "Seconds from its start to its end, or to now; null before it started."
    ),
    "parent_task_run_id": maybe(
        Scalar.TEXT, "The id of the task run that called it; null where none did."
    ),
}
FLOW_RUN = Record(
    "flow run",
    {
        **_RUN,
        "flow_name": text("The name of its flow."),
        "parameters": table(
            "What the flow was called with, by name; what JSON cannot say is a text, and a secret is"
            " hidden.",
        ),
        "version": maybe(Scalar.TEXT, "The version of its flow; null where that has none."),
        "entrypoint": maybe(
            Scalar.TEXT, "Where the flow is: path.py:flow or module:flow; null where not known."
        ),
        "infrastructure_pid": maybe(
            Scalar.TEXT, "What it runs in: HOST:PID of a process; null before that is known."
        ),
        "parent_flow_run_id": maybe(
            Scalar.TEXT, "The id of the flow run that called it; null where none did."
        ),
        "deployment_id": maybe(
            Scalar.TEXT,
            "The id of the deployment that it was made of; null for one that was called.",
        ),
        "work_queue": maybe(
            Scalar.TEXT, "The work queue that it is taken from; null for one that was called."
        ),
        "agent_name": maybe(
            Scalar.TEXT, "The name of the agent that took it; null where none did."
        ),
        "infrastructure": maybe(
            Scalar.OBJECT,
            "The type of what it runs in and what differs from the defaults, the values of its"
            " environment hidden; null for one that was called.",
        ),
        "scheduled_at": maybe(Scalar.TIME, "When it is due; null for one that was called."),
        "kill_at": maybe(
            Scalar.TIME,
            "When what has not ended of it is killed; null while nobody has asked for its end.",
        ),
    },
)
TASK_RUN = Record(
    "task run",
    {
        **_RUN,
        "task_name": text("The name of its task."),
        "flow_run_id": text("The id of the flow run that it is part of."),
        "cache_key": maybe(Scalar.TEXT, "Its cache key; null where the task has none."),
    },
)
PAUSE = Record(
    "pause",
    {
        "key": maybe(Scalar.TEXT, "What the flow calls it; null where it has no name."),
        "resume_by": maybe(
            Scalar.TIME, "When the run has Failed if nobody has resumed it; null for never."
        ),
        "input_schema": maybe(
            Scalar.OBJECT, "The JSON schema of what it asks for; null where that is nothing."
        ),
        "run_input": maybe(Scalar.OBJECT, "What it was told; null before that."),
    },
)
INSPECTED_FLOW_RUN = Record(
    "flow run, inspected",
    {
        "pause": maybe(PAUSE, "What it waits for; null where it is not paused."),
        "states": many(CHANGE, "Every state that it has had, oldest first."),
        "task_run_counts": table(
            "How many of its task runs are in each state, by the state's name."
        ),
        "subflow_runs": many(FLOW_RUN, "The flow runs that it has called."),
    },
    base=FLOW_RUN,
)
ENDED_FLOW_RUN = Record(
    "flow run, ended",
    {
        "task_run_counts": Field(
            Scalar.OBJECT,
            "How many of its task runs are in each state, by the state's name; not with --detach.",
            is_always=False,
        ),
        "result": Field(
            Scalar.ANY,
            "What the flow returned, as JSON can say it; null if not Completed; not with --detach.",
            is_nullable=True,
            is_always=False,
        ),
    },
    base=FLOW_RUN,
)
EVENT = Record(
    "event",
    {
        "event": text("What happened: flow_run.state or task_run.state, a run took a state."),
        "time": time("When it took it."),
        "flow_run_id": text("The id of the flow run, or of the one that the task run is part of."),
        "task_run_id": maybe(Scalar.TEXT, "The id of the task run; null for a flow run."),
        "parent_flow_run_id": maybe(
            Scalar.TEXT, "The id of the flow run that called the flow run; null where none did."
        ),
        "parent_task_run_id": maybe(
            Scalar.TEXT, "The id of the task run that called the run; null where none did."
        ),
        "name": text("The name of the run."),
        "flow_name": text("The name of the flow."),
        "task_name": maybe(Scalar.TEXT, "The name of the task; null for a flow run."),
        "version": whole("1 for the first state of the run, 2 for the next, and so on."),
        "state": Field(Record("state of an event", _STATE), "The state."),
        "actor": text("Who made the change, as USER@HOST:PID."),
    },
)
INSPECTED_TASK_RUN = Record(
    "task run, inspected",
    {"states": many(CHANGE, "Every state that it has had, oldest first.")},
    base=TASK_RUN,
)
LOG_LINE = Record(
    "log line",
    {
        "timestamp": time("When it was logged."),
        "level": whole("10 is debug, 20 info, 30 warning, 40 error and 50 critical."),
        "logger": text("The name of its logger."),
        "message": text("What was logged."),
        "flow_run_id": text("The id of the flow run."),
        "task_run_id": maybe(Scalar.TEXT, "The id of the task run; null where it is of none."),
    },
)
DEPLOYMENT = Record(
    "deployment",
    {
        "id": text("Its id, a UUID."),
        "name": text("Its name, unique among the deployments of its flow."),
        "flow_name": text("The name of its flow."),
        "entrypoint": text("Where the flow is: path.py:flow or module:flow."),
        "working_directory": text("The folder in which its runs begin, an absolute path."),
        "description": maybe(Scalar.TEXT, "What it is for; null where nothing says."),
        "version": maybe(Scalar.TEXT, "The version of its flow; null where that has none."),
        "parameters": table("What the flow is called with where a run says nothing."),
        "tags": texts("Tags of its runs, sorted."),
        "work_queue": text("The name of the work queue that its runs wait in."),
        "infrastructure": table(
            "The type of what its runs run in and what differs from the defaults, the values of its"
            " environment hidden.",
        ),
        "created_at": time("When it was first put on record."),
        "updated_at": time("When it was last put on record."),
    },
)
WORK_QUEUE = Record(
    "work queue",
    {
        "id": text("Its id, a UUID."),
        "name": text("Its name."),
        "description": maybe(Scalar.TEXT, "What it is for; null where nothing says."),
        "priority": whole("The queue with the smallest number is served first."),
        "concurrency_limit": maybe(
            Scalar.INTEGER, "How many of its runs may be going on at once; null for any number."
        ),
        "is_paused": yes_or_no("Whether no more of its runs are taken."),
        "created_at": time("When it was made."),
    },
)
COUNTED_WORK_QUEUE = Record(
    "work queue, with its runs",
    {
        "flow_run_counts": table(
            "How many of its runs that have not ended are in each state, by its name."
        )
    },
    base=WORK_QUEUE,
)
AGENT = Record(
    "agent",
    {
        "id": text("Its id, a UUID."),
        "name": text("Its name; agents of one name share their limit."),
        "work_queues": texts("The names of the work queues that it takes runs from."),
        "concurrency_limit": maybe(
            Scalar.INTEGER,
            "How many runs of its name may be going on at once; null for any number.",
        ),
        "hostname": text("The host that it runs on."),
        "pid": whole("The id of its process there."),
        "started_at": time("When it started."),
    },
)
NESTED_BLOCK = Record(
    "block in a block",
    {
        "field": text("Where it stands, such as servers.0.login."),
        "type": text("Its type."),
        "name": maybe(Scalar.TEXT, "The name that it is looked up by; null where it has none."),
    },
)
BLOCK = Record(
    "block",
    {
        "id": text("Its id, a UUID."),
        "type": text("Its type."),
        "name": text("Its name, unique among the blocks of its type."),
        "fields": table("Its fields by name; secrets are hidden without --show-secrets."),
        "secrets": texts("Where in it secrets stand."),
        "blocks": many(NESTED_BLOCK, "The blocks that stand in it."),
        "created_at": time("When it was first saved."),
        "updated_at": time("When it was last saved."),
    },
)
REGISTERED_TYPE = Record(
    "registered type of blocks",
    {
        "type": text("Its name."),
        "entrypoint": text("The module that defines it, or the absolute path of its file."),
        "registered_at": time("When it was registered."),
    },
)
BLOCK_TYPE = Record(
    "type of blocks",
    {
        "type": text("Its name."),
        "source": text("built in, infrastructure, registered or entry point."),
        "entrypoint": text("The module or file that defines it."),
    },
)
BLOCK_FIELD = Record(
    "field of a type of blocks",
    {
        "name": text("Its name."),
        "type": text("What its value is, as Python writes it."),
        "is_required": yes_or_no("Whether it must be given."),
        "default": maybe(Scalar.ANY, "Its default, secrets hidden; null where it has none."),
        "is_secret": yes_or_no("Whether it is, or may have in it, a secret."),
        "description": text("What it is for; empty where nothing says."),
    },
)
INSPECTED_TYPE = Record(
    "type of blocks, inspected",
    {
        "type": text("Its name."),
        "class": text("The Python class that defines it, with its module."),
        "description": text("What it is for; empty where nothing says."),
        "fields": many(BLOCK_FIELD, "Its fields."),
    },
)
RULE = Record(
    "notification rule",
    {
        "id": text("Its id, a UUID."),
        "states": texts("The names of the states that are told; empty for all."),
        "tags": texts("A run must have one of these; empty for any run."),
        "flow_names": texts("A run must be of one of these flows; empty for any."),
        "block": text("The block that tells, as TYPE/NAME."),
        "template": maybe(Scalar.TEXT, "What the message says; null for the usual text."),
        "is_active": yes_or_no("Whether changes are told; false while it is paused."),
        "created_at": time("When it was made."),
        "delivered_count": whole("How many notifications were delivered."),
        "delivered_at": maybe(Scalar.TIME, "When the last of them was; null before the first."),
        "waiting_count": whole("How many are still to be delivered."),
        "failed_count": whole("How many were given up."),
        "problem": maybe(Scalar.TEXT, "What was last in the way of one; null where nothing was."),
    },
)
NOTIFICATION = Record(
    "notification",
    {
        "flow_run_id": text("The id of the flow run."),
        "flow_run_name": text("The name of the flow run."),
        "flow_name": text("The name of its flow."),
        "state": Field(STATE, "The state that it took, which is to be told."),
        "attempts": whole("How often it was tried to tell it."),
        "due_at": maybe(Scalar.TIME, "When that is tried next; null where it was given up."),
        "is_being_sent": yes_or_no("Whether it is being tried now."),
        "problem": maybe(Scalar.TEXT, "What was in the way the last time; null for nothing."),
    },
)
INSPECTED_RULE = Record(
    "notification rule, inspected",
    {"notifications": many(NOTIFICATION, "What is still to be told, or was given up.")},
    base=RULE,
)
FLOW = Record(
    "flow",
    {
        "name": text("Its name."),
        "run_count": whole("How many runs it has."),
        "run_counts": table("How many of them are in a state of each type, by types."),
        "success_rate": maybe(
            Scalar.NUMBER,
            "The part of the runs that have ended which Completed, 0 to 1; null where none has ended.",
        ),
        "mean_seconds": maybe(
            Scalar.NUMBER,
            "Seconds that its runs which Completed took on average; null where none has.",
        ),
        "last_run": maybe(FLOW_RUN, "Its newest run; null where there is none."),
        "deployments": texts("The names of its deployments."),
    },
)
