-- Pauses: what a run that was paused waits, or has waited, for. Each belongs to the Paused state of
-- this version. A pause with a key is in a run once. resume_by is NULL where it waits for ever.

CREATE TABLE pause (
    flow_run_seq INTEGER NOT NULL REFERENCES flow_run (seq) ON DELETE CASCADE,
    state_version INTEGER NOT NULL,
    key TEXT,
    resume_by INTEGER,
    input_schema TEXT,
    input TEXT,
    PRIMARY KEY (flow_run_seq, state_version),
    UNIQUE (flow_run_seq, key)
) STRICT, WITHOUT ROWID;
