-- How the checks of cells came out: also those that held, and those that could not be judged.

-- Most cells of a case come out alike, so each way is there once.
CREATE TABLE judgements (
    judgement INTEGER PRIMARY KEY,
    checks TEXT NOT NULL UNIQUE         -- JSON: of each check its Tally
) STRICT;

-- Null where an older dmarig put the cell in: of it only is known what did not hold.
ALTER TABLE cells ADD COLUMN judgement INTEGER;
