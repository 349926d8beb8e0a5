-- +goose Up
-- Who takes an order's steps, and every state it was recorded in as a row.
CREATE TABLE order_steps (
    order_id TEXT   COLLATE "C" NOT NULL,
    seq      BIGINT NOT NULL, -- the order's version
    at_us    BIGINT NOT NULL,
    status   TEXT   NOT NULL,
    step     TEXT   NOT NULL, -- begun or about to begin, from then on
    attempts BIGINT NOT NULL, -- how often it was begun without a known end
    PRIMARY KEY (order_id, seq)
);
INSERT INTO order_steps
SELECT orders.id, n, (line ->> 'at_us')::bigint, line ->> 'status',
    CASE line ->> 'step' WHEN 'refund' THEN 'cancel-payment' ELSE line ->> 'step' END,
    (line ->> 'attempts')::bigint
FROM orders, unnest(string_to_array(rtrim(history, E'\n'), E'\n')::jsonb[]) WITH ORDINALITY AS h(line, n);

ALTER TABLE orders
    DROP CONSTRAINT orders_step_check,
    DROP COLUMN history,
    ADD COLUMN step_since_us BIGINT,
    ADD COLUMN owner TEXT NOT NULL DEFAULT '', -- the worker that takes the steps; '' = any, from due_at_us on
    ADD COLUMN put_off_at_us BIGINT;           -- when first put off, or left by its owner; NULL = never
UPDATE orders SET step_since_us = updated_at_us,
    put_off_at_us = CASE WHEN step <> '' THEN updated_at_us END,
    step = CASE step WHEN 'refund' THEN 'cancel-payment' ELSE step END;
ALTER TABLE orders
    ALTER COLUMN step_since_us SET NOT NULL,
    ALTER COLUMN owner DROP DEFAULT,
    ADD CONSTRAINT orders_step_check
        CHECK (step IN ('', 'reserve', 'charge', 'commit', 'cancel-payment', 'release'));
DROP INDEX orders_due;
CREATE INDEX orders_unfinished ON orders (due_at_us) WHERE step <> '';

-- A trigger, so that recording an order stays one statement, and its step cannot be forgotten.
-- +goose StatementBegin
CREATE FUNCTION record_step() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' OR NEW.status <> OLD.status OR NEW.step <> OLD.step THEN
        INSERT INTO order_steps
        VALUES (NEW.id, NEW.version, NEW.updated_at_us, NEW.status, NEW.step, NEW.attempts);
    ELSIF NEW.attempts <> OLD.attempts THEN
        UPDATE order_steps SET attempts = NEW.attempts WHERE order_id = NEW.id
            AND seq = (SELECT max(seq) FROM order_steps WHERE order_id = NEW.id);
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER orders_recorded AFTER INSERT OR UPDATE ON orders
    FOR EACH ROW EXECUTE FUNCTION record_step();

-- Processes, and until when each says that it lives.
CREATE TABLE workers (
    id             TEXT   NOT NULL PRIMARY KEY,
    alive_until_us BIGINT NOT NULL
);
