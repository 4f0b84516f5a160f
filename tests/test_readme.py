"""README.md and examples/GUIDE.md: their code runs, their links lead somewhere, they stay short."""

import re

import helpers
import jax
import pytest

README, GUIDE = (helpers.ROOT / name for name in ("README.md", "examples/GUIDE.md"))
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_readme_is_short():
    text = README.read_text()
    assert len(text.splitlines()) <= 150 and len(text.split()) <= 1400
    assert len(BLOCKS) == 3 and ">>>" not in text


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_each_block_of_the_readme_runs_alone(number):
    """As a user runs it: without the strict modes of the tests."""
    names = {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(compile(BLOCKS[number], f"README.md, block {number}", "exec"), names)
    assert jax.tree.leaves([value for value in names.values() if isinstance(value, jax.Array)])


@pytest.mark.parametrize("page", [README, GUIDE], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)]+)\)", page.read_text())
    assert len(links) > 10
    for link in links:
        file, _, anchor = link.partition("#")
        if file.startswith("https://"):
            continue
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            slugs = [
                re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-") for title in titles
            ]
            assert anchor in slugs, link


def test_the_guide_has_short_topics_and_lists_them():
    head, *topics = re.split(r"^## ", GUIDE.read_text(), flags=re.MULTILINE)
    titles = [topic.partition("\n")[0] for topic in topics]
    assert [f"- [{title}]" in head for title in titles] == [True] * len(titles)
    lengths = {
        title: len(topic.strip().splitlines()) - 2
        for title, topic in zip(titles, topics, strict=True)
    }
    assert max(lengths.values()) <= 20, lengths


def test_nothing_is_left_to_be_filled_in():
    for page in (README, GUIDE):
        assert not re.search(r"OWNER|TODO|badge", page.read_text()), page
