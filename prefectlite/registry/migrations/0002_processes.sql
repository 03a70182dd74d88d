-- Who runs a flow run: the identity of its process, as JSON, and the public identifier of what it
-- runs in, "scope:id". Both are NULL before it is begun.

ALTER TABLE flow_run ADD COLUMN process TEXT;
ALTER TABLE flow_run ADD COLUMN infrastructure_pid TEXT;
