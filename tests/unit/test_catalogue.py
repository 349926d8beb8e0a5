"""From sales to products."""

from datetime import UTC, datetime

import pytest

from prove.catalogue import CATEGORIES, OTHER, Article, Catalogue, category_of
from prove.retail import Sale


def sale(sku: str, name: str, price_minor: int) -> Sale:
    return Sale("1", sku, name, 1, datetime(2010, 12, 1, tzinfo=UTC), price_minor, "")


def articles(*sales: Sale) -> list[Article]:
    catalogue = Catalogue()
    for each in sales:
        catalogue.add(each)
    return list(catalogue.articles())


def test_name_and_price_are_those_of_most_lines() -> None:
    (article,) = articles(
        sale("A1", "TEA POT", 500),
        sale("A1", "TEAPOT", 450),
        sale("A1", "TEAPOT", 500),
        sale("A1", "check", 900),
    )
    assert (article.name, article.price_minor) == ("TEAPOT", 500)


def test_a_tie_goes_to_the_first_name_and_the_lower_price() -> None:
    (article,) = articles(sale("A1", "LATER IN THE ALPHABET", 500), sale("A1", "EARLIER", 450))
    assert (article.name, article.price_minor) == ("LATER IN THE ALPHABET", 450)


def test_products_come_by_sku() -> None:
    found = articles(sale("B", "MUG", 1), sale("A", "MUG", 1), sale("B", "MUG", 1))
    assert [article.sku for article in found] == ["A", "B"]
    assert {article.currency for article in found} == {"GBP"}


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("WHITE HANGING HEART T-LIGHT HOLDER", "lighting"),
        ("christmas mugs", "christmas"),  # the first of the table that fits
        ("PACK OF 6 BIRTHDAY CARDS", "stationery"),
        ("LETTER A BLING KEY RING", "accessories"),
        ("SPRING DEC , GOLD", OTHER),  # whole words only: no ring
        ("5 HOOK HANGER", "decoration"),
        ("GLOBE", OTHER),
    ],
)
def test_a_category_follows_from_a_word_of_the_name(name: str, category: str) -> None:
    assert category_of(name) == category


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_word_of_the_table_leads_to_its_category_or_one_before(category: str) -> None:
    order = list(CATEGORIES)
    for word in CATEGORIES[category].split():
        found = category_of(f"THE {word.replace('_', ' ')} X")
        assert order.index(found) <= order.index(category), word
