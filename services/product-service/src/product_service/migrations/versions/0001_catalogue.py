"""Products with full-text search, reservations, and who leads."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Byte order on both databases, so that keyset pagination and its indexes agree.
_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create everything."""
    op.create_table(
        "products",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("sku", _TEXT, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("category", _TEXT, nullable=False),
        sa.Column("price_minor", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("stock", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.CheckConstraint("stock >= 0", name="stock_not_negative"),
        # Ids are never used twice: an ETag is made of id and version.
        sqlite_autoincrement=True,
    )
    op.create_index("products_sku", "products", ["sku"], unique=True)
    op.create_index("products_name", "products", ["name", "sku"])
    op.create_index("products_price", "products", ["price_minor", "sku"])
    op.create_index("products_category_sku", "products", ["category", "sku"])
    op.create_index("products_category_name", "products", ["category", "name", "sku"])
    op.create_index("products_category_price", "products", ["category", "price_minor", "sku"])
    op.create_table(
        "reservations",
        sa.Column("id", _TEXT, primary_key=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("total_minor", sa.BigInteger, nullable=False),
        # Always read and written whole, so a document; [{sku, name, quantity, price_minor, ...}]
        sa.Column("lines", sa.Text, nullable=False),
    )
    op.create_index(
        "reservations_held",
        "reservations",
        ["expires_at_ms"],
        sqlite_where=sa.text("status = 'held'"),
        postgresql_where=sa.text("status = 'held'"),
    )
    op.create_table(
        "leader",
        sa.Column("job", sa.String(32), primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
    )
    if op.get_bind().dialect.name == "sqlite":
        _sqlite_search()
    else:
        _postgresql_search()


def _sqlite_search() -> None:
    op.execute(
        "CREATE VIRTUAL TABLE products_fts USING fts5(sku, name, description, "
        "content='products', content_rowid='id', tokenize='unicode61 remove_diacritics 2')"
    )
    insert = (
        "INSERT INTO products_fts(rowid, sku, name, description) "
        "VALUES (new.id, new.sku, new.name, new.description)"
    )
    delete = (
        "INSERT INTO products_fts(products_fts, rowid, sku, name, description) "
        "VALUES ('delete', old.id, old.sku, old.name, old.description)"
    )
    op.execute(f"CREATE TRIGGER products_fts_insert AFTER INSERT ON products BEGIN {insert}; END")
    op.execute(f"CREATE TRIGGER products_fts_delete AFTER DELETE ON products BEGIN {delete}; END")
    # Not on every update: moving stock must not touch the search index.
    op.execute(
        "CREATE TRIGGER products_fts_update AFTER UPDATE OF sku, name, description ON products "
        "WHEN old.sku <> new.sku OR old.name <> new.name OR old.description <> new.description "
        f"BEGIN {delete}; {insert}; END"
    )


def _postgresql_search() -> None:
    op.execute(
        "ALTER TABLE products ADD COLUMN search tsvector GENERATED ALWAYS AS "
        "(to_tsvector('simple', sku || ' ' || name || ' ' || description)) STORED"
    )
    op.execute("CREATE INDEX products_search ON products USING gin (search)")
    # Leave room on each page, so that moving stock can be a heap-only update.
    op.execute("ALTER TABLE products SET (fillfactor = 80)")
