"""Generated parts of a page that is otherwise written by hand, between two comments."""


def replaced(text: str, name: str, content: str) -> str:
    """`text` with `content` between `<!-- NAME -->` and `<!-- end of NAME -->`.

    Raises:
        ValueError: the text has no such comments.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"no {begin} .. {end} in the page")
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"
