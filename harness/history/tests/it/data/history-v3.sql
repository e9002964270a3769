PRAGMA application_id=1684889970;
PRAGMA user_version=3;
BEGIN TRANSACTION;
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
INSERT INTO runs VALUES(1,'20261122T201454Z-34e008',1795378494,'0.1.0','["dmarig","run","aa.yaml","-k","debian-6.1","-k","debian-6.12"]','{"kernel":"6.18.44-fc-v657","cpu":"AMD EPYC","cpus":2,"memory_kib":24684092,"load":"18.33 17.28 15.99"}','',NULL,0,2,2,15206,'370284e4086b358d30b02641db00a3dd');
CREATE TABLE environments (
    environment INTEGER PRIMARY KEY,
    fingerprint TEXT NOT NULL UNIQUE,
    facts TEXT NOT NULL                 -- JSON: Environment
) STRICT;
INSERT INTO environments VALUES(1,'7669ffdb9b9f1c07','{"cpu":"AMD EPYC","microcode":"","cpus":2,"memory_gib":24,"smt":"","governor":"","host_kernel":"6.18.44-fc-v657","qemu_version":"7.2.22 Debian 1:7.2+dfsg-7+deb12u18+b3","qemu_sha256":"","accelerator":"tcg"}');
CREATE TABLE builds (
    build INTEGER PRIMARY KEY,
    identity TEXT NOT NULL UNIQUE,
    facts TEXT NOT NULL                 -- JSON: Build
) STRICT;
INSERT INTO builds VALUES(1,'068c44a9318c83e9','{"image_sha256":"d8808aa4ca188560da1e6d749dcb930c87a5fd8b11ebff1f3fa6d728af35203d","boot":"pvh","packages":["linux-image-6.1.0-50-amd64 6.1.176-1 7b5597492a0a65aee61985a492e6bcc3f2cde830072a0e3b3d8c7e1b90279bd3"],"built":{}}');
INSERT INTO builds VALUES(2,'03388a84dcf95f9e','{"image_sha256":"2b2358b37674d2505350528875bb17afae2a36522a9e8a9417eaca65a7da0e08","boot":"pvh","packages":["linux-image-6.12.107+deb13-amd64 6.12.107-1 7794643cf4560de2a7e3b069e8ca8511ad2a568d652ea285f0fe051f79bc9e99"],"built":{}}');
CREATE TABLE places (
    place INTEGER PRIMARY KEY,
    case_name TEXT NOT NULL,
    variant TEXT NOT NULL,
    kernel TEXT NOT NULL,
    UNIQUE (case_name, variant, kernel)
) STRICT;
INSERT INTO places VALUES(1,'aa','caching-mode=on,policy=strict','debian-6.1');
INSERT INTO places VALUES(2,'aa','caching-mode=on,policy=strict','debian-6.12');
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
    duration_us INTEGER NOT NULL, judgement INTEGER,
    PRIMARY KEY (run, number)
) STRICT, WITHOUT ROWID;
INSERT INTO cells VALUES(1,0,1,1,1,'aa/kernel=debian-6.1','passed','[]','[]','6.1.0-50-amd64','DMA',0,1012984531,1);
INSERT INTO cells VALUES(1,1,2,1,2,'aa/kernel=debian-6.12','errored','["interrupted"]','[]','6.12.107+deb13-amd64','DMA',NULL,486601324,2);
CREATE TABLE series (
    series INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    place INTEGER NOT NULL,
    metric TEXT NOT NULL,
    unit TEXT NOT NULL,
    reference TEXT,
    environment INTEGER NOT NULL
) STRICT;
INSERT INTO series VALUES(1,'6259289e73283316aa11',1,'elapsed','ns',NULL,1);
INSERT INTO series VALUES(2,'e07b50b834e5758a8e18',1,'iops','1/s',NULL,1);
INSERT INTO series VALUES(3,'5fc1cdbfaeb8829bcfc9',1,'latency-max','ns',NULL,1);
INSERT INTO series VALUES(4,'8ceac1a3151fa0bf7d90',1,'latency-mean','ns',NULL,1);
INSERT INTO series VALUES(5,'9eb4c1e0307532314b1e',1,'latency-p50','ns',NULL,1);
INSERT INTO series VALUES(6,'19d1b787f66d26a7fb27',1,'latency-p90','ns',NULL,1);
INSERT INTO series VALUES(7,'d6cad0b536f10485b571',1,'latency-p99','ns',NULL,1);
INSERT INTO series VALUES(8,'24a7b15bfbae7379bf21',1,'latency-p999','ns',NULL,1);
INSERT INTO series VALUES(9,'914f573b900ae7d3ddab',1,'throughput','bytes/s',NULL,1);
CREATE TABLE points (
    series INTEGER NOT NULL,
    run INTEGER NOT NULL,
    cell INTEGER NOT NULL,
    value REAL NOT NULL,
    PRIMARY KEY (series, run)
) STRICT, WITHOUT ROWID;
INSERT INTO points VALUES(1,1,0,904830200.0);
INSERT INTO points VALUES(2,1,0,577.83021509852142117);
INSERT INTO points VALUES(3,1,0,182517759.0);
INSERT INTO points VALUES(4,1,0,13827575.552000001072);
INSERT INTO points VALUES(5,1,0,3446271.0);
INSERT INTO points VALUES(6,1,0,28336127.0);
INSERT INTO points VALUES(7,1,0,182517759.0);
INSERT INTO points VALUES(8,1,0,182517759.0);
INSERT INTO points VALUES(9,1,0,2366792.5610435437411);
CREATE TABLE samples (
    series INTEGER NOT NULL,
    run INTEGER NOT NULL,
    cell INTEGER NOT NULL,
    window INTEGER NOT NULL,
    pair INTEGER,
    value REAL NOT NULL,
    PRIMARY KEY (series, run, cell, window)
) STRICT, WITHOUT ROWID;
INSERT INTO samples VALUES(1,1,0,2,NULL,63793820.0);
INSERT INTO samples VALUES(1,1,0,3,NULL,1093940260.0);
INSERT INTO samples VALUES(1,1,0,4,NULL,715720140.0);
INSERT INTO samples VALUES(1,1,0,5,NULL,1561960630.0);
INSERT INTO samples VALUES(2,1,0,2,NULL,7837.749800842777404);
INSERT INTO samples VALUES(2,1,0,3,NULL,457.06335005898762347);
INSERT INTO samples VALUES(2,1,0,4,NULL,698.59708013805516201);
INSERT INTO samples VALUES(2,1,0,5,NULL,320.11050112063327332);
INSERT INTO samples VALUES(3,1,0,2,NULL,1870847.0);
INSERT INTO samples VALUES(3,1,0,3,NULL,220332031.0);
INSERT INTO samples VALUES(3,1,0,4,NULL,202113023.0);
INSERT INTO samples VALUES(3,1,0,5,NULL,162922495.0);
INSERT INTO samples VALUES(4,1,0,2,NULL,973641.72800000000282);
INSERT INTO samples VALUES(4,1,0,3,NULL,17191391.232000000775);
INSERT INTO samples VALUES(4,1,0,4,NULL,10463759.871999999508);
INSERT INTO samples VALUES(4,1,0,5,NULL,24872556.543999999761);
INSERT INTO samples VALUES(5,1,0,2,NULL,964607.0);
INSERT INTO samples VALUES(5,1,0,3,NULL,5771263.0);
INSERT INTO samples VALUES(5,1,0,4,NULL,1121279.0);
INSERT INTO samples VALUES(5,1,0,5,NULL,14680063.0);
INSERT INTO samples VALUES(6,1,0,2,NULL,1161215.0);
INSERT INTO samples VALUES(6,1,0,3,NULL,34504703.0);
INSERT INTO samples VALUES(6,1,0,4,NULL,22167551.0);
INSERT INTO samples VALUES(6,1,0,5,NULL,41254911.0);
INSERT INTO samples VALUES(7,1,0,2,NULL,1870847.0);
INSERT INTO samples VALUES(7,1,0,3,NULL,220332031.0);
INSERT INTO samples VALUES(7,1,0,4,NULL,202113023.0);
INSERT INTO samples VALUES(7,1,0,5,NULL,162922495.0);
INSERT INTO samples VALUES(8,1,0,2,NULL,1870847.0);
INSERT INTO samples VALUES(8,1,0,3,NULL,220332031.0);
INSERT INTO samples VALUES(8,1,0,4,NULL,202113023.0);
INSERT INTO samples VALUES(8,1,0,5,NULL,162922495.0);
INSERT INTO samples VALUES(9,1,0,2,NULL,32103423.184252016246);
INSERT INTO samples VALUES(9,1,0,3,NULL,1872131.4818416133056);
INSERT INTO samples VALUES(9,1,0,4,NULL,2861453.6402454739436);
INSERT INTO samples VALUES(9,1,0,5,NULL,1311172.6125901138875);
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
CREATE TABLE alert_events (
    id TEXT PRIMARY KEY,
    time INTEGER NOT NULL,              -- microseconds since 1970
    subject TEXT NOT NULL,
    run TEXT NOT NULL,
    state TEXT NOT NULL,
    note TEXT NOT NULL,
    author TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE judgements (
    judgement INTEGER PRIMARY KEY,
    checks TEXT NOT NULL UNIQUE         -- JSON: of each check its Tally
) STRICT;
INSERT INTO judgements VALUES(1,'{"behind-iommu":{"held":1,"broken":0,"unjudged":0},"faults":{"held":1,"broken":0,"unjudged":0},"group-type":{"held":1,"broken":0,"unjudged":0},"integrity":{"held":1,"broken":0,"unjudged":0},"log":{"held":1,"broken":0,"unjudged":0},"lost":{"held":1,"broken":0,"unjudged":0},"warning":{"held":1,"broken":0,"unjudged":0}}');
INSERT INTO judgements VALUES(2,'{}');
CREATE INDEX runs_by_time ON runs (started, id);
CREATE INDEX cells_by_place ON cells (place, run);
CREATE INDEX series_by_place ON series (place);
CREATE INDEX points_by_run ON points (run);
CREATE INDEX alert_events_by_subject ON alert_events (subject);
COMMIT;
