-- +goose Up
-- One row is an order with everything that is known of it, its idempotency key included: a step of
-- a checkout is one statement. Answers come last: whoever reads orders does not touch them.
CREATE TABLE orders (
    id              TEXT    NOT NULL PRIMARY KEY, -- UUIDv7: time-ordered
    customer_id     TEXT    NOT NULL,
    status          TEXT    NOT NULL
        CHECK (status IN ('pending', 'reserved', 'paid', 'confirmed', 'rejected', 'cancelled')),
    step            TEXT    NOT NULL -- begun or about to begin; '' = finished
        CHECK (step IN ('', 'reserve', 'charge', 'commit', 'refund', 'release')),
    attempts        INTEGER NOT NULL,
    due_at_us       INTEGER NOT NULL, -- from when on a worker may take it
    version         INTEGER NOT NULL,
    payment_method  TEXT    NOT NULL,
    currency        TEXT    NOT NULL,
    lines           TEXT    NOT NULL, -- JSON
    total_minor     INTEGER NOT NULL CHECK (total_minor >= 0),
    payment_id      TEXT    NOT NULL,
    failure         TEXT,             -- JSON
    traceparent     TEXT    NOT NULL,
    created_at_us   INTEGER NOT NULL,
    updated_at_us   INTEGER NOT NULL,
    history         TEXT    NOT NULL, -- every state it was recorded in, one JSON object a line
    idempotency_key TEXT,             -- NULL when it is free again
    fingerprint     BLOB    NOT NULL, -- SHA-256 of the request
    answer_status   INTEGER,          -- NULL while there is no final answer
    answer_body     BLOB
) STRICT;
CREATE UNIQUE INDEX orders_by_key ON orders (customer_id, idempotency_key);
CREATE INDEX orders_by_customer ON orders (customer_id, id);
CREATE INDEX orders_due ON orders (due_at_us, created_at_us) WHERE step <> '';
CREATE INDEX orders_keyed ON orders (created_at_us)
    WHERE idempotency_key IS NOT NULL AND answer_status IS NOT NULL;

-- +goose Down
DROP TABLE orders;
