-- +goose Up
-- Who takes an order's steps, and every state it was recorded in as a row. The table is made anew
-- because a CHECK cannot be changed.
CREATE TABLE orders_new (
    id              TEXT    NOT NULL PRIMARY KEY, -- UUIDv7: time-ordered
    customer_id     TEXT    NOT NULL,
    status          TEXT    NOT NULL
        CHECK (status IN ('pending', 'reserved', 'paid', 'confirmed', 'rejected', 'cancelled')),
    step            TEXT    NOT NULL -- begun or about to begin; '' = finished
        CHECK (step IN ('', 'reserve', 'charge', 'commit', 'cancel-payment', 'release')),
    step_since_us   INTEGER NOT NULL,
    attempts        INTEGER NOT NULL, -- how often the step was begun without a known end
    owner           TEXT    NOT NULL, -- the worker that takes the steps; '' = any, from due_at_us on
    due_at_us       INTEGER NOT NULL,
    put_off_at_us   INTEGER,          -- when first put off, or left by its owner; NULL = never
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
    idempotency_key TEXT,             -- NULL when it is free again
    fingerprint     BLOB    NOT NULL, -- SHA-256 of the request
    answer_status   INTEGER,          -- NULL while there is no final answer
    answer_body     BLOB
) STRICT;
INSERT INTO orders_new
SELECT id, customer_id, status, CASE step WHEN 'refund' THEN 'cancel-payment' ELSE step END,
    updated_at_us, attempts, '', due_at_us, CASE WHEN step <> '' THEN updated_at_us END, version,
    payment_method, currency, lines, total_minor, payment_id, failure, traceparent, created_at_us,
    updated_at_us, idempotency_key, fingerprint, answer_status, answer_body
FROM orders;

CREATE TABLE order_steps (
    order_id TEXT    NOT NULL,
    seq      INTEGER NOT NULL, -- the order's version
    at_us    INTEGER NOT NULL,
    status   TEXT    NOT NULL,
    step     TEXT    NOT NULL, -- begun or about to begin, from then on
    attempts INTEGER NOT NULL, -- how often it was begun without a known end
    PRIMARY KEY (order_id, seq)
) STRICT, WITHOUT ROWID;
INSERT INTO order_steps
SELECT orders.id, h.key + 1, h.value ->> 'at_us', h.value ->> 'status',
    CASE h.value ->> 'step' WHEN 'refund' THEN 'cancel-payment' ELSE h.value ->> 'step' END,
    h.value ->> 'attempts'
FROM orders, json_each('[' || replace(rtrim(history, char(10)), char(10), ',') || ']') AS h;

DROP TABLE orders;
ALTER TABLE orders_new RENAME TO orders;
CREATE UNIQUE INDEX orders_by_key ON orders (customer_id, idempotency_key);
CREATE INDEX orders_by_customer ON orders (customer_id, id);
CREATE INDEX orders_unfinished ON orders (due_at_us) WHERE step <> '';
CREATE INDEX orders_keyed ON orders (created_at_us)
    WHERE idempotency_key IS NOT NULL AND answer_status IS NOT NULL;

-- Triggers, so that recording an order stays one statement, and its step cannot be forgotten.
-- +goose StatementBegin
CREATE TRIGGER orders_made AFTER INSERT ON orders BEGIN
    INSERT INTO order_steps
    VALUES (NEW.id, NEW.version, NEW.updated_at_us, NEW.status, NEW.step, NEW.attempts);
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER orders_moved AFTER UPDATE OF status, step ON orders
WHEN NEW.status <> OLD.status OR NEW.step <> OLD.step BEGIN
    INSERT INTO order_steps
    VALUES (NEW.id, NEW.version, NEW.updated_at_us, NEW.status, NEW.step, NEW.attempts);
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER orders_tried AFTER UPDATE OF attempts ON orders
WHEN NEW.status = OLD.status AND NEW.step = OLD.step AND NEW.attempts <> OLD.attempts BEGIN
    UPDATE order_steps SET attempts = NEW.attempts WHERE order_id = NEW.id
        AND seq = (SELECT max(seq) FROM order_steps WHERE order_id = NEW.id);
END;
-- +goose StatementEnd

-- Processes, and until when each says that it lives.
CREATE TABLE workers (
    id             TEXT    NOT NULL PRIMARY KEY,
    alive_until_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
