-- +goose Up
-- What the customer was shown; NULL = not told. The goods are not sold at another price.
ALTER TABLE orders ADD COLUMN expected_total_minor INTEGER;
