-- Schema 3. How far the tasks of a batch are stands beside it until it is forgotten: JSON of `progress.rs`. It stands before
-- what is packed, so that it is read without that.

CREATE TABLE log_batch_with_progress (
    first INTEGER PRIMARY KEY,
    count INTEGER NOT NULL,
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    frontier BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    chain BLOB NOT NULL,
    signature BLOB NOT NULL,
    progress BLOB,
    packed BLOB NOT NULL
) STRICT;
INSERT INTO log_batch_with_progress (first, count, size, root, frontier, epoch, chain, signature, packed)
    SELECT first, count, size, root, frontier, epoch, chain, signature, packed FROM log_batch;
DROP TABLE log_batch;
ALTER TABLE log_batch_with_progress RENAME TO log_batch;
