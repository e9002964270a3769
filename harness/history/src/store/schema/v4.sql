-- How many cells a run was to have.

-- Null where the record does not say, or where an older dmarig put the run in.
ALTER TABLE runs ADD COLUMN planned INTEGER;
