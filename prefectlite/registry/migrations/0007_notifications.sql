-- Who wants to hear of which changes of flow runs, and what is still to be told. states, tags and
-- flow_names are JSON lists; an empty one stands for all.

CREATE TABLE notification_rule (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    states TEXT NOT NULL,
    tags TEXT NOT NULL,
    flow_names TEXT NOT NULL,
    block TEXT NOT NULL,
    template TEXT,
    is_active INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    delivered_count INTEGER NOT NULL DEFAULT 0,
    delivered_at INTEGER
) STRICT;

-- What is delivered is deleted. due_at is NULL where it was given up. The process that is about to
-- deliver it is its courier, as JSON like flow_run.process; until due_at it is that one's alone.
CREATE TABLE notification (
    seq INTEGER PRIMARY KEY,
    rule_seq INTEGER NOT NULL REFERENCES notification_rule (seq) ON DELETE CASCADE,
    flow_run_seq INTEGER NOT NULL REFERENCES flow_run (seq) ON DELETE CASCADE,
    state_type TEXT NOT NULL,
    state_name TEXT NOT NULL,
    state_message TEXT,
    state_at INTEGER NOT NULL,
    state_version INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    due_at INTEGER,
    courier TEXT,
    problem TEXT
) STRICT;

-- Looked at after every durable write, and almost always empty.
CREATE INDEX notification_due ON notification (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX notification_waiting ON notification (attempts, seq)
    WHERE due_at IS NOT NULL AND courier IS NULL;
CREATE INDEX notification_taken ON notification (courier) WHERE courier IS NOT NULL;
CREATE INDEX notification_by_rule ON notification (rule_seq);
CREATE INDEX notification_by_flow_run ON notification (flow_run_seq);

-- What there is to tell of the states that runs are in now.
CREATE VIEW notification_match AS
SELECT notification_rule.seq AS rule_seq, flow_run.seq AS flow_run_seq,
    state_type, state_name, state_message, state_at, state_version
FROM flow_run CROSS JOIN notification_rule
WHERE is_active
AND (states = '[]' OR EXISTS (
    SELECT 1 FROM json_each(states) WHERE lower(value) IN (lower(state_name), lower(state_type))
))
AND (flow_names = '[]' OR flow_name IN (SELECT value FROM json_each(flow_names)))
AND (notification_rule.tags = '[]' OR EXISTS (
    SELECT 1 FROM json_each(flow_run.tags)
    WHERE value IN (SELECT value FROM json_each(notification_rule.tags))
));

-- Triggers write it down in the transaction of the change: so no change can be without its
-- notifications, whoever makes it. Without a rule they cost next to nothing.
CREATE TRIGGER flow_run_created_told AFTER INSERT ON flow_run
WHEN EXISTS (SELECT 1 FROM notification_rule WHERE is_active) BEGIN
    INSERT INTO notification (
        rule_seq, flow_run_seq, state_type, state_name, state_message, state_at, state_version, due_at
    )
    SELECT *, state_at FROM notification_match WHERE flow_run_seq = new.seq;
END;

CREATE TRIGGER flow_run_changed_told AFTER UPDATE OF state_version ON flow_run
WHEN EXISTS (SELECT 1 FROM notification_rule WHERE is_active) BEGIN
    INSERT INTO notification (
        rule_seq, flow_run_seq, state_type, state_name, state_message, state_at, state_version, due_at
    )
    SELECT *, state_at FROM notification_match WHERE flow_run_seq = new.seq;
END;
