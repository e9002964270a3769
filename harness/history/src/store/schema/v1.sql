-- The history: derived from records of runs, so it may be thrown away and made again. Numbers in the
-- first column are this file's own; two histories tell the same by ids, fingerprints and keys.

CREATE TABLE runs (
    run INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    started INTEGER NOT NULL,           -- seconds since 1970
    dmarig TEXT NOT NULL,
    command TEXT NOT NULL,              -- JSON: array of words
    host TEXT NOT NULL,                 -- JSON: HostFacts
    rules TEXT NOT NULL,
    reference TEXT,                     -- name of the reference kernel
    synthetic INTEGER NOT NULL,
    derivation INTEGER NOT NULL,
    cells INTEGER NOT NULL,
    record_bytes INTEGER NOT NULL,      -- of the record's cells.jsonl, its whole lines
    digest TEXT NOT NULL                -- of all that is derived; decides between two of one id
) STRICT;
CREATE INDEX runs_by_time ON runs (started, id);

CREATE TABLE environments (
    environment INTEGER PRIMARY KEY,
    fingerprint TEXT NOT NULL UNIQUE,
    facts TEXT NOT NULL                 -- JSON: Environment
) STRICT;

CREATE TABLE builds (
    build INTEGER PRIMARY KEY,
    identity TEXT NOT NULL UNIQUE,
    facts TEXT NOT NULL                 -- JSON: Build
) STRICT;

CREATE TABLE places (
    place INTEGER PRIMARY KEY,
    case_name TEXT NOT NULL,
    variant TEXT NOT NULL,
    kernel TEXT NOT NULL,
    UNIQUE (case_name, variant, kernel)
) STRICT;

CREATE TABLE cells (
    run INTEGER NOT NULL,
    number INTEGER NOT NULL,
    place INTEGER NOT NULL,
    environment INTEGER NOT NULL,
    build INTEGER NOT NULL,
    id TEXT NOT NULL,
    outcome TEXT NOT NULL,
    reasons TEXT NOT NULL,              -- JSON: array
    checks TEXT NOT NULL,               -- JSON: array
    release TEXT,
    group_type TEXT,
    warning INTEGER,
    duration_us INTEGER NOT NULL,
    PRIMARY KEY (run, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX cells_by_place ON cells (place, run);

CREATE TABLE series (
    series INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    place INTEGER NOT NULL,
    metric TEXT NOT NULL,
    unit TEXT NOT NULL,
    reference TEXT,
    environment INTEGER NOT NULL
) STRICT;
CREATE INDEX series_by_place ON series (place);

CREATE TABLE points (
    series INTEGER NOT NULL,
    run INTEGER NOT NULL,
    cell INTEGER NOT NULL,
    value REAL NOT NULL,
    PRIMARY KEY (series, run)
) STRICT, WITHOUT ROWID;
CREATE INDEX points_by_run ON points (run);

CREATE TABLE samples (
    series INTEGER NOT NULL,
    run INTEGER NOT NULL,
    cell INTEGER NOT NULL,
    window INTEGER NOT NULL,
    pair INTEGER,
    value REAL NOT NULL,
    PRIMARY KEY (series, run, cell, window)
) STRICT, WITHOUT ROWID;
