-- What can be run, and in which order. A flow run keeps all that it needs of its deployment, so that
-- a deployment or a work queue which is changed or deleted changes no run.

CREATE TABLE deployment (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    flow_name TEXT NOT NULL,
    entrypoint TEXT NOT NULL,
    working_directory TEXT NOT NULL,
    description TEXT,
    version TEXT,
    parameters TEXT NOT NULL,
    tags TEXT NOT NULL,
    work_queue TEXT NOT NULL,
    infrastructure TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (flow_name, name)
) STRICT;

CREATE TABLE work_queue (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    description TEXT,
    priority INTEGER NOT NULL,
    concurrency_limit INTEGER,
    is_paused INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

ALTER TABLE flow_run ADD COLUMN deployment_id TEXT;
ALTER TABLE flow_run ADD COLUMN work_queue TEXT;
ALTER TABLE flow_run ADD COLUMN infrastructure TEXT;
ALTER TABLE flow_run ADD COLUMN scheduled_at INTEGER;

-- Finds what is due in a queue, oldest first, and counts what is going on in it. Most runs are
-- final or in no queue, and cost nothing here.
CREATE INDEX flow_run_by_work_queue ON flow_run (work_queue, state_type, scheduled_at)
    WHERE work_queue IS NOT NULL
    AND state_type NOT IN ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED');
