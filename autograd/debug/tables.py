"""How reports about many ops are printed: layers by name, columns that line up, bytes in one unit."""

UNITS = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3), ("B", 1))


def layer_name(path, depth=None, each=False):
    """("blocks.3", "attention", "query") as "blocks.*.attention.query": blocks of one kind share a name.

    depth: how many parts of the path to keep. each: True keeps the numbers apart.
    """
    parts = ".".join(path[:depth]).split(".")
    return ".".join("*" if part.isdigit() and not each else part for part in parts)


def unit_of(n):
    """(name, bytes) of the unit in which `n` bytes read well."""
    return next((unit for unit in UNITS if n >= unit[1]), UNITS[-1])


def in_bytes(n, unit=None):
    """`12.58 MB`; with a unit given the number alone, for a column."""
    name, size = unit or unit_of(n)
    number = f"{n:,}" if size == 1 else f"{n / size:,.2f}"
    return number if unit else f"{number} {name}"


def table(header, rows):
    """Lines of text with aligned columns. A header that ends in a space heads a column of text, set to the left."""
    cells = [[title.strip() for title in header], *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    left = [title.endswith(" ") for title in header]

    def line(row):
        set_in = [f"{c:<{w}}" if text else f"{c:>{w}}" for c, w, text in zip(row, widths, left, strict=True)]
        return "  ".join(set_in).rstrip()

    return [line(row) for row in cells]
