-- Times are microseconds since the Unix epoch, UTC. Inside the file rows refer to each other by
-- seq, the order of creation; the ids that people see are random and stand only in their own row.

CREATE TABLE flow_run (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    flow_name TEXT NOT NULL,
    state_type TEXT NOT NULL,
    state_name TEXT NOT NULL,
    state_message TEXT,
    state_at INTEGER NOT NULL,
    state_version INTEGER NOT NULL,
    state_actor TEXT NOT NULL,
    parameters TEXT NOT NULL,
    tags TEXT NOT NULL,
    version TEXT,
    entrypoint TEXT,
    parent_flow_run_id TEXT,
    parent_task_run_id TEXT,
    run_count INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    ended_at INTEGER
) STRICT;

CREATE INDEX flow_run_by_name ON flow_run (name);
CREATE INDEX flow_run_by_flow ON flow_run (flow_name);
CREATE INDEX flow_run_by_parent ON flow_run (parent_flow_run_id)
    WHERE parent_flow_run_id IS NOT NULL;
CREATE INDEX flow_run_unfinished ON flow_run (state_type)
    WHERE state_type NOT IN ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED');

CREATE TABLE task_run (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    task_name TEXT NOT NULL,
    flow_run_seq INTEGER NOT NULL REFERENCES flow_run (seq) ON DELETE CASCADE,
    state_type TEXT NOT NULL,
    state_name TEXT NOT NULL,
    state_message TEXT,
    state_at INTEGER NOT NULL,
    state_version INTEGER NOT NULL,
    state_actor TEXT NOT NULL,
    tags TEXT NOT NULL,
    parent_task_run_id TEXT,
    cache_key TEXT,
    run_count INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    ended_at INTEGER
) STRICT;

CREATE INDEX task_run_by_flow_run ON task_run (flow_run_seq);

-- The history: the states before the present one, which stands in the run's own row. Triggers
-- write it, so that no change of state can be without its entry.

CREATE TABLE flow_run_state (
    flow_run_seq INTEGER NOT NULL REFERENCES flow_run (seq) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    type TEXT NOT NULL,
    name TEXT NOT NULL,
    message TEXT,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    PRIMARY KEY (flow_run_seq, version)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER flow_run_changed AFTER UPDATE OF state_version ON flow_run BEGIN
    INSERT INTO flow_run_state VALUES (
        old.seq, old.state_version, old.state_type, old.state_name, old.state_message,
        old.state_at, old.state_actor
    );
END;

CREATE TABLE task_run_state (
    task_run_seq INTEGER NOT NULL REFERENCES task_run (seq) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    type TEXT NOT NULL,
    name TEXT NOT NULL,
    message TEXT,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    PRIMARY KEY (task_run_seq, version)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER task_run_changed AFTER UPDATE OF state_version ON task_run BEGIN
    INSERT INTO task_run_state VALUES (
        old.seq, old.state_version, old.state_type, old.state_name, old.state_message,
        old.state_at, old.state_actor
    );
END;

CREATE TABLE log (
    seq INTEGER PRIMARY KEY,
    flow_run_seq INTEGER NOT NULL REFERENCES flow_run (seq) ON DELETE CASCADE,
    task_run_id TEXT,
    level INTEGER NOT NULL,
    logger TEXT NOT NULL,
    message TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT;

CREATE INDEX log_by_flow_run ON log (flow_run_seq);

CREATE TABLE cached_result (
    cache_key TEXT PRIMARY KEY,
    task_run_id TEXT NOT NULL,
    expires_at INTEGER
) STRICT, WITHOUT ROWID;
