-- +goose Up
-- One row is an order with everything that is known of it, its idempotency key included: a step of
-- a checkout is one statement. Answers come last: whoever reads orders does not touch them.
CREATE TABLE orders (
    id              TEXT    COLLATE "C" NOT NULL PRIMARY KEY, -- UUIDv7: time-ordered
    customer_id     TEXT    NOT NULL,
    status          TEXT    NOT NULL
        CHECK (status IN ('pending', 'reserved', 'paid', 'confirmed', 'rejected', 'cancelled')),
    step            TEXT    NOT NULL -- begun or about to begin; '' = finished
        CHECK (step IN ('', 'reserve', 'charge', 'commit', 'refund', 'release')),
    attempts        BIGINT  NOT NULL,
    due_at_us       BIGINT  NOT NULL, -- from when on a worker may take it
    version         BIGINT  NOT NULL,
    payment_method  TEXT    NOT NULL,
    currency        TEXT    NOT NULL,
    lines           JSONB   NOT NULL,
    total_minor     BIGINT  NOT NULL CHECK (total_minor >= 0),
    payment_id      TEXT    NOT NULL,
    failure         JSONB,
    traceparent     TEXT    NOT NULL,
    created_at_us   BIGINT  NOT NULL,
    updated_at_us   BIGINT  NOT NULL,
    history         TEXT    NOT NULL, -- every state it was recorded in, one JSON object a line
    idempotency_key TEXT,             -- NULL when it is free again
    fingerprint     BYTEA   NOT NULL, -- SHA-256 of the request
    answer_status   BIGINT,           -- NULL while there is no final answer
    answer_body     BYTEA
);
CREATE UNIQUE INDEX orders_by_key ON orders (customer_id, idempotency_key);
CREATE INDEX orders_by_customer ON orders (customer_id, id);
CREATE INDEX orders_due ON orders (due_at_us, created_at_us) WHERE step <> '';
CREATE INDEX orders_keyed ON orders (created_at_us)
    WHERE idempotency_key IS NOT NULL AND answer_status IS NOT NULL;

-- +goose Down
DROP TABLE orders;
