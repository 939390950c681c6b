"""docs/reliability.md: every row names tests that exist, and the command reads the table."""

import re

from tools.dev import promises


def test_every_row_names_tests_that_exist():
    found = promises.rows(promises.PAGE.read_text(encoding='utf-8'))
    assert len(found) >= 20
    for _, commands, _ in found:
        for path in re.findall(r'(?:tests|\.\.\.)/\S+\.py', ' '.join(commands)):
            assert (promises.ROOT / path).is_file(), path


def test_an_outcome_is_pytests_own(monkeypatch):
    held, said = promises.outcome('tests/test_common/test_checksums.py -k standard', slow=False)
    assert held and re.match(r'1 passed', said)
