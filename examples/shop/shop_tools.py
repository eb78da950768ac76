"""Two tools of a shop: typed functions, with a docstring that tells of each argument."""

import csv


def price_of(item: str, file: str) -> str:
    """The price of an item in a price list.

    Args:
        item: its name, as the list has it
        file: the price list, such as "prices.csv"
    """
    with open(file, newline="") as lines:
        prices = {row["item"]: row["price"] for row in csv.DictReader(lines)}
    if item not in prices:
        raise ValueError(f'no item "{item}" in {file}. Items: {", ".join(sorted(prices))}')
    return prices[item]


def in_stock(item: str, file: str) -> int:
    """How many of an item are in stock.

    Args:
        item: its name, as the list has it
        file: the stock list, such as "stock.csv"
    """
    with open(file, newline="") as lines:
        counts = {row["item"]: int(row["count"]) for row in csv.DictReader(lines)}
    if item not in counts:
        raise ValueError(f'no item "{item}" in {file}. Items: {", ".join(sorted(counts))}')
    return counts[item]
