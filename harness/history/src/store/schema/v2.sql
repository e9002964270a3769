-- Where series changed, and what people said of it.

-- Of a series that is not in here, the changes are not known, or not any more.
CREATE TABLE searched (
    series INTEGER PRIMARY KEY
) STRICT;

CREATE TABLE changes (
    series INTEGER NOT NULL,
    run INTEGER NOT NULL,               -- the first of what is new
    before_run INTEGER NOT NULL,        -- the last of what was
    strength REAL NOT NULL,
    p REAL NOT NULL,
    before REAL NOT NULL,
    after REAL NOT NULL,
    PRIMARY KEY (series, run)
) STRICT, WITHOUT ROWID;

-- Not derived: these are kept in a file of lines beside this one, too.
CREATE TABLE alert_events (
    id TEXT PRIMARY KEY,
    time INTEGER NOT NULL,              -- microseconds since 1970
    subject TEXT NOT NULL,
    run TEXT NOT NULL,
    state TEXT NOT NULL,
    note TEXT NOT NULL,
    author TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX alert_events_by_subject ON alert_events (subject);
