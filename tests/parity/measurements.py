"""What the comparisons measured: tables of rows of columns, which `conftest.py` prints after the last test."""

TABLES = {}


def record(table, row, **columns):
    """Put numbers or short texts into a row of a table; rows and columns stand in the order in which they came."""
    TABLES.setdefault(table, {}).setdefault(row, {}).update(columns)


def lines(table):
    """The table as aligned text: errors with two digits, counts whole."""
    rows = TABLES[table]
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    texts = [["", *columns]]
    texts += [[name, *(text(row.get(column, "")) for column in columns)] for name, row in rows.items()]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return ["  ".join(entry.rjust(width) for entry, width in zip(row, widths, strict=True)) for row in texts]


def text(value):
    return f"{value:.1e}" if isinstance(value, float) else str(value)
