"""From sales lines to products.

A product is a stock code. Its name and its price are those that most of its lines have (a tie goes
to the name seen first, and to the lower price); its category follows from its name by `CATEGORIES`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from prove.retail import Sale

CURRENCY = "GBP"
OTHER = "other"

CATEGORIES: dict[str, str] = {
    "christmas": "christmas xmas advent santa reindeer snowman snowmen snowflake noel",
    "easter": "easter chick bunny bunnies",
    "lighting": "candle candlestick candlestand candlepot candleholder t-light tealight lantern "
    "lamp lampshade light nightlight votive chandelier incense oil_burner torch",
    "accessories": "key_ring keyring key_fob umbrella scarf hat sunglasses",
    "jewellery": "necklace necklac bracelet earring ring brooch bangle anklet diamante charm tiara "
    "hairband hair_clip hair_slide hair_comb",
    "bags": "bag handbag shopper purse wallet rucksack backpack suitcase tote luggage passport",
    "stationery": "notebook sketchbook scrap_book pocket_book bookmark book_mark stationery "
    "journal pen pencil card postcard wrap sticker stamp paper tissue party_invite confetti ribbon "
    "tape envelope album eraser chalk calendar tag",
    "toys": "toy jigsaw doll puzzle game teddy skittle rocket robot dinosaur soldier drawing_slate "
    "playing balloon skipping spinning pony puppet snap helicopter glider",
    "kitchen": "mug cup teapot tea coffee bowl plate platter cake_stand cakestand cake_case "
    "cutlery jar jug bottle tin baking bake spoon lunch_box egg toast kitchen apron oven napkin "
    "dish tray coaster glass bread food recipe straw picnic placemat measuring milk wine "
    "breakfast dinner spatula rolling_pin saucer tumbler beaker cocktail cookie biscuit jelly "
    "mould frying chopstick",
    "garden": "garden gardener watering plant planter flower_pot bird_house birdhouse bird_table "
    "parasol hammock herb seed trowel gnome windmill bucket",
    "bathroom": "bath bathroom soap towel flannel sponge shower toothbrush laundry washbag balm",
    "textiles": "cushion c/cover filler_pad quilt throw blanket rug doormat curtain fabric "
    "tablecloth fleece hot_water warmer slipper cosy felt feltcraft sewing knitted knitting patch",
    "decoration": "decoration heart garland bunting sign doorsign frame clock mirror hook wreath "
    "hanging ornament wall tile letter vase picture drawer cabinet magnet door doorstop photo "
    "plaque paperweight flower blossom hanger box basket star chime trinket feather "
    "butterfly butterflies bird dovecote cornice mobile keepsake storage holder knob",
}
"""Category → words (`_` is the space in a phrase). The first category that has a whole word of the
name, singular or plural, in capitals or not, is the product's."""


def _alternatives(words: str) -> str:
    return "|".join(re.escape(word.replace("_", " ")) for word in words.split())


_MATCHERS = [
    (
        category,
        re.compile(rf"(?<![\w-])(?:{_alternatives(words)})(?:e?s)?(?!\w)", re.IGNORECASE),
    )
    for category, words in CATEGORIES.items()
]


@dataclass(frozen=True, slots=True)
class Article:
    """A product of the catalogue, but for its stock."""

    sku: str
    name: str
    category: str
    price_minor: int
    currency: str = CURRENCY


@dataclass(slots=True)
class _Seen:
    names: dict[str, int] = field(default_factory=dict)
    prices: dict[int, int] = field(default_factory=dict)


class Catalogue:
    """Collects sales; what it keeps grows with the number of products, not of lines."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def add(self, sale: Sale) -> None:
        """Take a sale into account."""
        seen = self._seen.setdefault(sale.sku, _Seen())
        seen.names[sale.name] = seen.names.get(sale.name, 0) + 1
        seen.prices[sale.price_minor] = seen.prices.get(sale.price_minor, 0) + 1

    def articles(self) -> Iterator[Article]:
        """The products, by sku."""
        for sku in sorted(self._seen):
            seen = self._seen[sku]
            name = max(seen.names, key=lambda name: seen.names[name])
            price = max(seen.prices, key=lambda price: (seen.prices[price], -price))
            yield Article(sku, name, category_of(name), price)


def category_of(name: str) -> str:
    """The first category of `CATEGORIES` with a word in `name`, else `OTHER`."""
    return next((category for category, words in _MATCHERS if words.search(name)), OTHER)
