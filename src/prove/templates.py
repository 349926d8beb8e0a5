"""Templates of pages that lie beside the code which fills them in."""

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment(
    package: str, *, autoescape: bool = True, keep_trailing_newline: bool = True
) -> Environment:
    """Those of `prove/PACKAGE`; what isn't given to one is an error, not nothing."""
    return Environment(
        loader=PackageLoader("prove", package),
        autoescape=autoescape,  # noqa: S701 - off for Markdown alone
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=keep_trailing_newline,
    )
