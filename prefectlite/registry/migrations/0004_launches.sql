-- Runs that one process takes, starts in another, and a third supervises: who these are, as JSON like
-- flow_run.process; the name of the agent; when what was asked to end is killed; and how much of its
-- captured output is in its log. All of it is NULL, or 0, for a run that was called.

ALTER TABLE flow_run ADD COLUMN launcher TEXT;
ALTER TABLE flow_run ADD COLUMN supervisor TEXT;
ALTER TABLE flow_run ADD COLUMN agent_name TEXT;
ALTER TABLE flow_run ADD COLUMN kill_at INTEGER;
ALTER TABLE flow_run ADD COLUMN output_bytes INTEGER NOT NULL DEFAULT 0;

-- Agents that are going, or were when they were last heard of: their processes say which.
CREATE TABLE agent (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    work_queues TEXT NOT NULL,
    concurrency_limit INTEGER,
    process TEXT NOT NULL,
    started_at INTEGER NOT NULL
) STRICT;
