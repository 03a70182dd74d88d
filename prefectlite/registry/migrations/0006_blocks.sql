-- The files that hold secrets, each listed from before it is written until it has been removed: one
-- that no block names is left over.
CREATE TABLE secrets_file (
    name TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- Blocks: configuration by type and name. What is secret in one stands in a file of its own, NULL
-- where nothing is; secrets and blocks say where in the fields these stand.
CREATE TABLE block_document (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    name TEXT NOT NULL,
    fields TEXT NOT NULL,
    secrets TEXT NOT NULL,
    blocks TEXT NOT NULL,
    secrets_file TEXT UNIQUE REFERENCES secrets_file (name),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (type, name)
) STRICT;

-- Types of blocks that a person has registered, and where their classes are.
CREATE TABLE block_type (
    type TEXT PRIMARY KEY,
    entrypoint TEXT NOT NULL,
    registered_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
