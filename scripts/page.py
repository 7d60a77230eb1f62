"""Pages of results, of which each script writes a section."""

import re


def section(page, title):
    """The section of `page` under the heading `title`, with it; empty where there is none."""
    return next((part for part in parts(page) if part.startswith(title + "\n")), "")


def replace(page, title, text, new):
    """Puts `text`, which begins with the heading `title`, in the place of that section, or at the end. Others stay as they are; a page
    that does not exist begins with `new`."""
    all = parts(page) or [new + "\n"]
    at = next((i for i, part in enumerate(all) if part.startswith(title + "\n")), len(all))
    all[at : at + 1] = [text]
    page.write_text("\n\n".join(part.strip() for part in all) + "\n")


def parts(page):
    return re.split(r"^(?=## )", page.read_text(), flags=re.M) if page.exists() else []
